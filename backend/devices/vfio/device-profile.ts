// A device's description as a JSON file, written by `probe` and read by `serve --profile`: it spares the 1.5 s in which
// start-up enables a VF to look at it. Called by openVfioDevice and the probe command.

import { Errno } from '../../../protocol/errno.ts';
import { loadUint } from '../../../protocol/little-endian.ts';
import {
  type DeviceDescription,
  type FunctionShape,
  HostError,
} from '../../device/physical-device.ts';
import { HEADER } from '../../pci/spec/header.ts';

/** What of a description the VFs' look is known by; the PF is always asked itself. */
export interface VfProfile {
  /** Vendor and device ID of the PF, as in its config space. */
  readonly pfIds: number;
  readonly totalVfs: number;
  readonly vf: FunctionShape;
}

const FORMAT = 1;

/** The file's text. */
export function encodeProfile({ pf, vf, totalVfs }: DeviceDescription): string {
  const config = Buffer.from(vf.config).toString('hex');
  const profile = { format: FORMAT, pfIds: idsOf(pf.config), totalVfs, vf: { ...vf, config } };
  return `${JSON.stringify(profile, null, 2)}\n`;
}

/** @throws HostError when the text is no profile, or that of another device. */
export function decodeProfile(text: string, path: string, pfConfig: Uint8Array): VfProfile {
  const profile = parse(text);
  if (profile === undefined) {
    throw new HostError(
      'read',
      Errno.EINVAL,
      path,
      'it is no profile of format 1',
      'write it anew: `vfio-user-sriov probe --pf=... --output=FILE`',
    );
  }
  if (profile.pfIds !== idsOf(pfConfig)) {
    throw new HostError(
      'read',
      Errno.EINVAL,
      path,
      `it describes VFs of device ${profile.pfIds.toString(16)}, this PF is ${idsOf(pfConfig).toString(16)}`,
      'write it anew: `vfio-user-sriov probe --pf=... --output=FILE`',
    );
  }
  return profile;
}

function parse(text: string): VfProfile | undefined {
  let profile: { format?: unknown; pfIds?: unknown; totalVfs?: unknown; vf?: unknown };
  try {
    profile = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (profile === null) {
    return undefined;
  }
  const { format, pfIds, totalVfs } = profile;
  const vf = profile.vf as Omit<FunctionShape, 'config'> & { config?: unknown };
  const isComplete =
    format === FORMAT &&
    typeof pfIds === 'number' &&
    typeof totalVfs === 'number' &&
    typeof vf?.config === 'string' &&
    Array.isArray(vf.bars) &&
    Array.isArray(vf.regions) &&
    Array.isArray(vf.irqs);
  if (!isComplete) {
    return undefined;
  }
  const config = new Uint8Array(Buffer.from(vf.config as string, 'hex'));
  return { pfIds, totalVfs, vf: { ...vf, config } };
}

function idsOf(config: Uint8Array): number {
  return loadUint(config, HEADER.vendorId.offset, 4);
}
