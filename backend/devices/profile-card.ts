// Whether a card can be that a profile describes: by its config space a guest has to find a PF with SR-IOV, and VFs of it. Pure.

import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import type { FunctionShape } from '../device/physical-device.ts';
import {
  findCapability,
  findExtendedCapability,
  walkExtendedCapabilities,
} from '../pci/capability-chain.ts';
import { msixPlaces } from '../pci/msix-places.ts';
import { registerIn } from '../pci/registers.ts';
import { ARI_BYTES } from '../pci/spec/ari.ts';
import { CapabilityId, ExtendedCapabilityId } from '../pci/spec/capability-ids.ts';
import { HEADER } from '../pci/spec/header.ts';
import { SRIOV_BYTES } from '../pci/spec/sriov.ts';
import { demand } from './profile-shapes.ts';

/** Vendor IDs that say that nobody is there. */
const NOBODY: readonly number[] = [0, 0xffff];
/** Those that are served anew at their places, by ID: their lengths in bytes. */
const SERVED_ANEW: ReadonlyMap<number, number> = new Map<number, number>([
  [ExtendedCapabilityId.sriov, SRIOV_BYTES],
  [ExtendedCapabilityId.alternativeRoutingId, ARI_BYTES],
]);

/** Vendor and device ID. */
export function idsOf(config: Uint8Array): number {
  const [vendor, device] = [HEADER.vendorId, HEADER.deviceId].map((each) =>
    registerIn(config, 0, each),
  );
  return ((device! << 16) | vendor!) >>> 0;
}

/** @throws ProfileFault */
export function insistOnCard(pfIds: number, pf: FunctionShape, vf: FunctionShape): void {
  const place = 'card.pf.config';
  const isThere = !NOBODY.includes(registerIn(pf.config, 0, HEADER.vendorId));
  demand(isThere, place, 'is of no function that answers: it has no vendor ID');
  demand(pfIds === idsOf(pf.config), 'pfIds', `is not what ${place} begins with`);
  insistOnFunction(pf, 'card.pf');
  insistOnFunction(vf, 'vf');
  const sriov = findExtendedCapability(pf.config, ExtendedCapabilityId.sriov);
  demand(sriov !== undefined, place, 'has no SR-IOV capability');
}

function insistOnFunction({ config, bars, regions }: FunctionShape, name: string): void {
  const space = regions[RegionIndex.config];
  const path = `${name}.regions[${RegionIndex.config}].size`;
  demand(space?.size === config.length, path, `is not as many bytes as ${name}.config has`);
  insistOnCapabilities(config, `${name}.config`);
  const msix = msixPlaces(config);
  for (const { bar, end } of msix === undefined ? [] : [msix.table, msix.pendingBits]) {
    const isInside = bars.some(({ index, size }) => index === bar && end <= size);
    demand(isInside, `${name}.config`, `has MSI-X beyond its BAR ${bar}`);
  }
}

function insistOnCapabilities(config: Uint8Array, place: string): void {
  const pciExpress = findCapability(config, CapabilityId.pciExpress);
  demand(pciExpress !== undefined, place, 'has no PCI Express capability');
  const all = walkExtendedCapabilities(config);
  for (const { id, offset } of all) {
    const end = offset + (SERVED_ANEW.get(id) ?? 0);
    const isAlone = all.every((each) => each.offset <= offset || each.offset >= end);
    const where = `0x${offset.toString(16)}`;
    const has = `has a capability at ${where} that is longer than the room it has there`;
    demand(isAlone && end <= config.length, place, has);
  }
}
