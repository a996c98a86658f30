// A device's description as a JSON file, written by `probe`, or by `profile` from lspci's text. `serve --pf --profile` reads
// what VFs look like from it, which spares the 1.5 s in which start-up enables a VF to look at it; a device in RAM looks like
// the whole card.

import { Errno } from '../../protocol/errno.ts';
import type { SyscallError } from '../../protocol/unix/syscall-error.ts';
import { readWholeFile } from '../../protocol/unix/whole-file.ts';
import {
  type DeviceDescription,
  type FunctionShape,
  HostError,
} from '../device/physical-device.ts';
import type { BarShape } from '../pci/bars.ts';
import { MOST_VFS } from '../pci/spec/sriov.ts';
import { jsonFault } from './json-fault.ts';
import { placeInJson } from './json-place.ts';
import type { KindOption } from './kind.ts';
import { idsOf, insistOnCard } from './profile-card.ts';
import { barsFrom, demand, isObject, ProfileFault, shapeFrom, whole } from './profile-shapes.ts';

/** What a profile says; without `card` it was written when profiles held VFs only. */
export interface DeviceProfile {
  /** Vendor and device ID of the PF, as in its config space. */
  readonly pfIds: number;
  readonly totalVfs: number;
  readonly vf: FunctionShape;
  readonly card?: {
    readonly name: string;
    readonly pf: FunctionShape;
    readonly vfDeviceId: number;
    readonly vfBars: readonly BarShape[];
  };
}

/** The option of each kind that reads one. */
export const PROFILE_OPTION: KindOption = {
  flags: '--profile <file>',
  description:
    'the card in this file, which `probe` or `profile` wrote, is what the device looks like; a PF of this host takes from it what its VFs are like, instead of enabling one',
};

const FORMAT = 1;
/** Where the card's address is not known. */
const SOME_PF = 'ADDRESS';

/** The file's text; `source`: where what it says is from, for people. */
export function encodeProfile(description: DeviceDescription, source?: string): string {
  const { name, pf, vf, totalVfs, vfDeviceId, vfBars } = description;
  const profile = {
    format: FORMAT,
    ...(source === undefined ? {} : { source }),
    pfIds: idsOf(pf.config),
    totalVfs,
    vf: written(vf),
    card: { name, pf: written(pf), vfDeviceId, vfBars },
  };
  return `${JSON.stringify(profile, null, 2)}\n`;
}

/** `pf`: the address of the card that it is to describe, if known. @throws HostError where it cannot be read, or is no profile. */
export function readProfile(path: string, pf = SOME_PF): DeviceProfile {
  let text: string;
  try {
    text = readWholeFile(path);
  } catch (error) {
    const { call, errno, what } = error as SyscallError;
    throw new HostError(call, errno, path, what, nameOne(pf));
  }
  return decodeProfile(text, path, pf);
}

/** @throws HostError where the text is no profile: with the line, and with what is wrong there. */
export function decodeProfile(text: string, path: string, pf = SOME_PF): DeviceProfile {
  const refused = (at: number, what: string): HostError => {
    const line = text.slice(0, at).split('\n').length;
    return new HostError('read', Errno.EINVAL, path, `line ${line}: ${what}`, nameOne(pf));
  };
  const fault = jsonFault(text);
  if (fault !== undefined) {
    const end = text.slice(0, fault).trimEnd().length;
    throw refused(end, 'it is no profile: no JSON from there on, or cut off');
  }
  try {
    return profileFrom(JSON.parse(text));
  } catch (error) {
    if (error instanceof ProfileFault) {
      throw refused(placeInJson(text, error.place), error.message);
    }
    throw error;
  }
}

/** @throws HostError where the profile is that of another device than the PF with this config space. */
export function insistOnIds(
  profile: DeviceProfile,
  path: string,
  pf: string,
  pfConfig: Uint8Array,
): void {
  if (profile.pfIds !== idsOf(pfConfig)) {
    throw new HostError(
      'read',
      Errno.EINVAL,
      path,
      `it describes VFs of device ${profile.pfIds.toString(16)}, this PF is ${idsOf(pfConfig).toString(16)}`,
      writeIt(path, pf),
    );
  }
}

/** The card's description; making its VFs takes `enableMilliseconds`. @throws HostError where the profile lacks its PF. */
export function describeCard(
  { card, vf, totalVfs }: DeviceProfile,
  path: string,
  options: { readonly mostVfs: number | undefined; readonly enableMilliseconds: number },
): DeviceDescription {
  if (card === undefined) {
    const what = 'it says nothing of the PF: an older version wrote it';
    throw new HostError('read', Errno.EINVAL, path, what, writeIt(path, SOME_PF));
  }
  return {
    ...card,
    vf,
    totalVfs: Math.min(totalVfs, options.mostVfs ?? MOST_VFS),
    leastMakingMilliseconds: options.enableMilliseconds,
  };
}

/** The path may be that of something else, which is not to be written over. */
function nameOne(pf: string): string {
  return `name a profile; \`vfio-user-sriov probe --pf=${pf} --output=FILE\` writes one`;
}

function writeIt(path: string, pf: string): string {
  return `write it anew: \`vfio-user-sriov probe --pf=${pf} --output=${path}\``;
}

/** @throws ProfileFault */
function profileFrom(value: unknown): DeviceProfile {
  const isProfile = isObject(value) && value.format === FORMAT && typeof value.pfIds === 'number';
  demand(isProfile, '', `it is no profile of format ${FORMAT}`);
  const { pfIds, totalVfs, vf, card } = value;
  whole(0xffff_ffff)(pfIds, 'pfIds');
  whole(0xffff, 1)(totalVfs, 'totalVfs');
  const common = { pfIds: Number(pfIds), totalVfs: Number(totalVfs), vf: shapeFrom(vf, 'vf') };
  if (card === undefined) {
    return common;
  }
  demand(isObject(card), 'card', 'is no object');
  const { name, vfDeviceId, vfBars, pf } = card;
  demand(typeof name === 'string', 'card.name', 'is no text');
  whole(0xfffe)(vfDeviceId, 'card.vfDeviceId');
  const shape = shapeFrom(pf, 'card.pf');
  const bars = barsFrom(vfBars, 'card.vfBars');
  const isMemory = bars.every(({ kind }) => kind !== 'io');
  demand(isMemory, 'card.vfBars', 'are not all memory: a VF has no I/O space');
  insistOnCard(common.pfIds, shape, common.vf);
  return {
    ...common,
    card: { name, vfDeviceId: Number(vfDeviceId), vfBars: bars, pf: shape },
  };
}

function written(shape: FunctionShape): object {
  return { ...shape, config: Buffer.from(shape.config).toString('hex') };
}
