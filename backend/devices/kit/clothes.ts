// A device in RAM in the shape of a card: `--profile` lays the card's identity, capabilities and BARs over what the device
// declares, which goes on doing what it does. Memory is where the card has memory; where the card has no room for registers
// or vectors the profile is refused.

import { PAGE_BYTES } from '../../../protocol/page.ts';
import { UserError } from '../../../protocol/user-error.ts';
import type { DeviceDescription, FunctionShape } from '../../device/physical-device.ts';
import type { BarShape } from '../../pci/bars.ts';
import { type MsixPlaces, msixPlaces } from '../../pci/msix-places.ts';
import { registerIn } from '../../pci/registers.ts';
import { HEADER } from '../../pci/spec/header.ts';
import { vectorsOf } from '../../pci/vectors.ts';
import { describeCard, readProfile } from '../device-profile.ts';
import {
  type BarDeclaration,
  type BarPart,
  type DeviceDeclaration,
  type FunctionDeclaration,
  msixTable,
  ram,
} from './declaration.ts';

/** The card that a profile describes, and where it was read. */
export interface Clothes {
  readonly path: string;
  readonly card: DeviceDescription;
}

/** What `--profile` names, if anything, with at most so many VFs. @throws HostError for what is no profile of a whole card */
export function clothesFrom(
  profile: string | undefined,
  mostVfs: number | undefined,
): Clothes | undefined {
  if (profile === undefined) {
    return undefined;
  }
  const card = describeCard(readProfile(profile), profile, { mostVfs, enableMilliseconds: 0 });
  return { path: profile, card };
}

/** The device as the card looks; as it is where there is none. @throws UserError where the two contradict each other */
export function dressed<Shared>(
  device: DeviceDeclaration<Shared>,
  clothes: Clothes | undefined,
): DeviceDeclaration<Shared> {
  if (clothes === undefined) {
    return device;
  }
  const { card, path } = clothes;
  const { pf, vf, vfBars, vfDeviceId, totalVfs } = card;
  const value = (register: keyof typeof HEADER): number =>
    registerIn(pf.config, 0, HEADER[register]);
  return {
    ...device,
    vendorId: value('vendorId'),
    deviceId: value('deviceId'),
    vfDeviceId,
    subsystemVendorId: value('subsystemVendorId'),
    subsystemId: value('subsystemId'),
    classCode:
      (value('baseClass') << 16) | (value('subClass') << 8) | value('programmingInterface'),
    revision: value('revisionId'),
    totalVfs,
    pf: dressedFunction(device.pf, pf, pf.bars, refusal(path, device.name, 'PF')),
    vf: dressedFunction(device.vf, vf, vfBars, refusal(path, device.name, 'VF')),
  };
}

type Refuse = (what: string, has: string) => UserError;

function refusal(path: string, device: string, who: string): Refuse {
  return (needs, has) =>
    new UserError(
      `--profile=${path}: ${device} needs ${needs}, and the card's ${who} ${has}`,
      'take the profile of another card, or --loopback, which looks like any',
      2,
    );
}

function dressedFunction<Shared>(
  declared: FunctionDeclaration<Shared>,
  { config }: FunctionShape,
  bars: readonly BarShape[],
  refuse: Refuse,
): FunctionDeclaration<Shared> {
  const { msi, msix } = vectorsOf(config);
  const isInterrupting = (declared.msixVectors ?? 0) + (declared.msiVectors ?? 0) > 0;
  if (isInterrupting && msi + msix === 0) {
    throw refuse('MSI-X or MSI', 'has neither');
  }
  const { advancedErrorReporting: _, vendorSpecific: __, ...rest } = declared;
  return {
    ...rest,
    msiVectors: msi,
    msixVectors: msix,
    bars: dressedBars(declared.bars, bars, msixPlaces(config), refuse),
    configImage: config,
  };
}

function dressedBars(
  declared: readonly BarDeclaration[],
  shapes: readonly BarShape[],
  msix: MsixPlaces | undefined,
  refuse: Refuse,
): BarDeclaration[] {
  if (msix !== undefined && msix.table.bar !== msix.pendingBits.bar) {
    throw refuse('MSI-X table and pending bits in one BAR', 'has them in two');
  }
  const behaviour = new Map(declared.map(({ index, parts }) => [index, whatMatters(parts)]));
  for (const [index, parts] of behaviour) {
    const shape = shapes.find((each) => each.index === index);
    checkRoom(index, parts, shape, refuse);
    checkMsix(index, parts, msix, refuse);
  }
  return shapes.map((shape) => {
    const parts = behaviour.get(shape.index) ?? [];
    const table =
      msix?.table.bar === shape.index ? [msixTable(msix.table.start, msix.pendingBits.start)] : [];
    const isMemory = shape.kind !== 'io' && shape.size >= PAGE_BYTES;
    const memory = isMemory && parts.length + table.length === 0 ? [ram(0, shape.size)] : [];
    return { ...shape, parts: [...parts, ...table, ...memory] };
  });
}

/** Nothing of a BAR that is memory alone, and never where MSI-X lies: the card says that. */
function whatMatters(parts: readonly BarPart[]): BarPart[] {
  const own = parts.filter(({ kind }) => kind !== 'msix');
  return own.every(({ kind }) => kind === 'ram') ? [] : own;
}

function checkRoom(
  index: number,
  parts: readonly BarPart[],
  shape: BarShape | undefined,
  refuse: Refuse,
): void {
  const needed = Math.max(0, ...parts.map((part) => endOf(part)));
  if (needed === 0) {
    return;
  }
  const needs = `${needed} bytes of memory in BAR ${index}`;
  if (shape === undefined) {
    throw refuse(needs, 'has no such BAR');
  }
  if (shape.kind === 'io') {
    throw refuse(needs, 'has I/O ports there');
  }
  if (shape.size < needed) {
    throw refuse(needs, `has ${shape.size}`);
  }
}

function checkMsix(
  index: number,
  parts: readonly BarPart[],
  msix: MsixPlaces | undefined,
  refuse: Refuse,
): void {
  for (const place of msix === undefined ? [] : [msix.table, msix.pendingBits]) {
    const hit = parts.find((part) => part.at < place.end && endOf(part) > place.start);
    if (place.bar === index && hit !== undefined) {
      const needs = `BAR ${index} from 0x${hit.at.toString(16)} on for itself`;
      throw refuse(needs, `has MSI-X at 0x${place.start.toString(16)} of it`);
    }
  }
}

function endOf(part: BarPart): number {
  return part.at + ('size' in part ? part.size : 0);
}
