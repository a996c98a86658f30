// Which bytes of a function's config space are the hardware's: the header, the capabilities on the allow-list and,
// below 0x100, what lies between them (some drivers keep registers of their own there). Capabilities that are not on
// the list are unlinked, and their bytes belong to nobody, so that nothing of the host shows through.

import { allOnes, loadUint, storeUint } from '../../protocol/little-endian.ts';
import {
  type CapabilityEntry,
  type ChainPatch,
  planChain,
  walkExtendedCapabilities,
} from '../pci/capability-chain.ts';
import { type ConfigOwner, type ConfigPatch, patchOwner } from '../pci/config-space.ts';
import { fieldOf, maskOf, registerIn } from '../pci/registers.ts';
import { AER_BYTES } from '../pci/spec/aer.ts';
import { ARI_BYTES } from '../pci/spec/ari.ts';
import {
  type AllowedCapabilities,
  CapabilityId,
  ExtendedCapabilityId,
} from '../pci/spec/capability-ids.ts';
import { DEVICE_SERIAL_NUMBER_BYTES } from '../pci/spec/device-serial-number.ts';
import { EXTENDED_HEADER, extendedHeader } from '../pci/spec/extended-header.ts';
import { CONFIG_BYTES } from '../pci/spec/header.ts';
import { MSI_32, msiBytes } from '../pci/spec/msi.ts';
import { MSIX, MSIX_BYTES } from '../pci/spec/msix.ts';
import { PCI_EXPRESS, PCI_EXPRESS_BYTES } from '../pci/spec/pcie.ts';
import { POWER_MANAGEMENT_BYTES } from '../pci/spec/power-management.ts';
import { SRIOV_BYTES } from '../pci/spec/sriov.ts';
import { VENDOR_SPECIFIC, VENDOR_SPECIFIC_EXTENDED } from '../pci/spec/vendor-specific.ts';

/** The hardware's config space, or what stands in for it; absolute offsets. */
export interface HardwareConfig {
  read(offset: number, length: 1 | 2 | 4): number;
  write(offset: number, length: 1 | 2 | 4, value: number): void;
}

/** Offsets in config space, `end` not included. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

export interface HardwareLayout {
  readonly owners: readonly ConfigOwner[];
  /** Offset of Device Control in config space, undefined without a PCI Express capability. */
  readonly deviceControl: number | undefined;
  /** The extended capabilities that stay, in chain order. */
  readonly extended: readonly CapabilityEntry[];
}

const DEVICE_CONTROL = PCI_EXPRESS.deviceControl;
const FLR = maskOf(DEVICE_CONTROL, 'initiateFunctionLevelReset');

/**
 * Plans the owners of `image`. `holes` are ranges that somebody else owns. A write that starts a function level reset
 * never reaches the hardware: `onFunctionLevelReset` is called instead.
 */
export function hardwareLayout(
  image: Uint8Array,
  allowed: AllowedCapabilities,
  holes: readonly Range[],
  hardware: HardwareConfig,
  onFunctionLevelReset: () => void,
): HardwareLayout {
  const plan = planChain(image, allowed);
  const pciExpress = plan.kept.find(({ id }) => id === CapabilityId.pciExpress);
  const deviceControl = pciExpress && pciExpress.offset + DEVICE_CONTROL.offset;
  const standard = [...plan.kept, ...plan.unlinked];
  const standardEnds = plan.unlinked.map((entry) =>
    roomOf(entry, standardBytes(image, entry), standard, CONFIG_BYTES),
  );
  const extended = [...plan.keptExtended, ...plan.unlinkedExtended];
  const flr =
    deviceControl === undefined
      ? []
      : [{ start: deviceControl, end: deviceControl + DEVICE_CONTROL.bytes }];
  const ranges = [
    ...without({ start: 0, end: CONFIG_BYTES }, [...standardEnds, ...flr, ...holes]),
    ...plan.keptExtended.flatMap((entry) =>
      without(roomOf(entry, extendedBytes(image, entry), extended, image.length), holes),
    ),
  ];
  const patches = [...plan.patches, ...msixTableSize(image, plan.kept)];
  const owners = ranges.map((range) => patched(range, hardware, patches));
  if (deviceControl !== undefined) {
    owners.push(deviceControlOwner(deviceControl, hardware, onFunctionLevelReset));
  }
  // A chain whose first capability is not at 0x100 needs its null head there.
  if (plan.keptExtended.length > 0 && plan.keptExtended[0]!.offset !== CONFIG_BYTES) {
    owners.push(nullHead(plan.keptExtended[0]!.offset));
  }
  return { owners, deviceControl, extended: plan.keptExtended };
}

/** The places of extended capabilities that somebody else serves: from an ID to the capability's length. */
export function rangesOf(image: Uint8Array, lengths: ReadonlyMap<number, number>): Range[] {
  return walkExtendedCapabilities(image).flatMap(({ id, offset }) => {
    const length = lengths.get(id);
    return length === undefined ? [] : [{ start: offset, end: offset + length }];
  });
}

function patched(
  range: Range,
  hardware: HardwareConfig,
  patches: readonly ChainPatch[],
): ConfigOwner {
  const inside: ConfigPatch[] = patches
    .filter(({ offset, length }) => offset >= range.start && offset + length <= range.end)
    .map((patch) => ({ ...patch, offset: patch.offset - range.start }));
  return patchOwner(
    {
      offset: range.start,
      length: range.end - range.start,
      read: (offset, length) => hardware.read(range.start + offset, length),
      write: (offset, length, value) => hardware.write(range.start + offset, length, value),
    },
    inside,
  );
}

// Vectors are told to the client once, as is this size. An NVMe VF gets others while it lives.
function msixTableSize(image: Uint8Array, kept: readonly CapabilityEntry[]): ChainPatch[] {
  return kept
    .filter(({ id }) => id === CapabilityId.msix)
    .map((entry) => {
      const { offset, bytes } = MSIX.messageControl;
      const mask = maskOf(MSIX.messageControl, 'tableSize');
      const value = registerIn(image, entry.offset, MSIX.messageControl) & mask;
      return { offset: entry.offset + offset, length: bytes, mask, value };
    });
}

function deviceControlOwner(
  offset: number,
  hardware: HardwareConfig,
  onFunctionLevelReset: () => void,
): ConfigOwner {
  return {
    offset,
    length: DEVICE_CONTROL.bytes,
    read: (at, length) => hardware.read(offset + at, length),
    write: (at, length, value) => {
      const bit = (FLR >>> (8 * at)) & allOnes(length);
      hardware.write(offset + at, length, value & ~bit);
      if (value & bit) {
        onFunctionLevelReset();
      }
    },
  };
}

function nullHead(next: number): ConfigOwner {
  const bytes = new Uint8Array(EXTENDED_HEADER.bytes);
  storeUint(bytes, 0, bytes.length, extendedHeader(0, 0, next));
  return {
    offset: CONFIG_BYTES,
    length: bytes.length,
    read: (offset, length) => loadUint(bytes, offset, length),
    write: () => {},
  };
}

function standardBytes(image: Uint8Array, { id, offset }: CapabilityEntry): number {
  switch (id) {
    case CapabilityId.powerManagement:
      return POWER_MANAGEMENT_BYTES;
    case CapabilityId.msi:
      return msiBytes(registerIn(image, offset, MSI_32.messageControl));
    case CapabilityId.pciExpress:
      return PCI_EXPRESS_BYTES;
    case CapabilityId.msix:
      return MSIX_BYTES;
    case CapabilityId.vendorSpecific:
      return Math.max(4, registerIn(image, offset, VENDOR_SPECIFIC.length));
    default:
      return 8;
  }
}

function extendedBytes(image: Uint8Array, { id, offset }: CapabilityEntry): number {
  switch (id) {
    case ExtendedCapabilityId.advancedErrorReporting:
      return AER_BYTES;
    case ExtendedCapabilityId.deviceSerialNumber:
      return DEVICE_SERIAL_NUMBER_BYTES;
    case ExtendedCapabilityId.alternativeRoutingId:
      return ARI_BYTES;
    case ExtendedCapabilityId.sriov:
      return SRIOV_BYTES;
    case ExtendedCapabilityId.vendorSpecific:
    case ExtendedCapabilityId.designatedVendorSpecific:
      return vendorBytes(image, offset);
    default:
      return EXTENDED_HEADER.bytes;
  }
}

/** What a vendor's capability says of its own length, in whole dwords; both kinds say it at the same place. */
function vendorBytes(image: Uint8Array, offset: number): number {
  const { vendorSpecificHeader } = VENDOR_SPECIFIC_EXTENDED;
  const said = fieldOf(
    vendorSpecificHeader,
    'length',
    registerIn(image, offset, vendorSpecificHeader),
  );
  return Math.min(Math.max(8, said - (said % 4)), image.length - offset);
}

/** A capability that claims more than its room ends where the next one starts, or with its space. */
function roomOf(
  { offset }: CapabilityEntry,
  bytes: number,
  all: readonly CapabilityEntry[],
  spaceBytes: number,
): Range {
  const starts = all.map((each) => each.offset).filter((start) => start > offset);
  return { start: offset, end: Math.min(offset + bytes, spaceBytes, ...starts) };
}

function without(range: Range, holes: readonly Range[]): Range[] {
  let parts: Range[] = [range];
  for (const hole of holes) {
    parts = parts.flatMap(({ start, end }) => [
      ...(hole.start > start ? [{ start, end: Math.min(end, hole.start) }] : []),
      ...(hole.end < end ? [{ start: Math.max(start, hole.end), end }] : []),
    ]);
    parts = parts.filter(({ start, end }) => start < end);
  }
  return parts;
}
