// The capabilities of a function in RAM, from its declaration: both chains in order, each capability at a place of its
// own, whatever others there are.

import { ROUTING_ID_SPACING } from '../../../protocol/launch/routing-id-spacing.ts';
import { powerStateAfter } from '../../pci/power-state.ts';
import type { Change, RegisterBlock } from '../../pci/register-block.ts';
import { fieldOf, maskOf, type RegisterTable, registerValue } from '../../pci/registers.ts';
import { AER, AER_BYTES } from '../../pci/spec/aer.ts';
import { ARI, ARI_BYTES, ARI_VERSION } from '../../pci/spec/ari.ts';
import { CapabilityId, ExtendedCapabilityId } from '../../pci/spec/capability-ids.ts';
import {
  DEVICE_SERIAL_NUMBER,
  DEVICE_SERIAL_NUMBER_BYTES,
} from '../../pci/spec/device-serial-number.ts';
import { extendedHeader } from '../../pci/spec/extended-header.ts';
import { MSI_64, msiBytes } from '../../pci/spec/msi.ts';
import { MSIX, MSIX_BYTES } from '../../pci/spec/msix.ts';
import {
  DevicePortType,
  PCI_EXPRESS,
  PCI_EXPRESS_BYTES,
  VF_PCI_EXPRESS,
} from '../../pci/spec/pcie.ts';
import { POWER_MANAGEMENT, POWER_MANAGEMENT_BYTES } from '../../pci/spec/power-management.ts';
import { SRIOV, SRIOV_BYTES, SRIOV_VERSION } from '../../pci/spec/sriov.ts';
import { SUPPORTED_PAGE_SIZES } from '../../sriov/vf-geometry.ts';
import type { BarDeclaration, DeviceDeclaration, FunctionDeclaration } from './declaration.ts';

export const Offset = {
  powerManagement: 0x40,
  msi: 0x50,
  pciExpress: 0x70,
  msix: 0xb0,
  vendorSpecific: 0xc0,
  ari: 0x100,
  sriov: 0x110,
  advancedErrors: 0x150,
  serialNumber: 0x1a0,
} as const;

/** What a vendor-specific capability may hold, after its three bytes of header. */
export const VENDOR_SPECIFIC_BYTES = 0x100 - Offset.vendorSpecific - 3;

const AER_VERSION = 2;
const SERIAL_NUMBER_VERSION = 1;

type Values = Readonly<Record<string, number>>;

/** A capability in its chain; `next` is the next one's offset, 0 after the last. */
export type Capability =
  | {
      readonly offset: number;
      readonly table: RegisterTable;
      readonly length: number;
      reset(next: number): Values;
      /** Bits that stay writable of a register of which not all are. */
      readonly writable?: Values;
      written?(
        block: RegisterBlock<RegisterTable>,
        changes: readonly Change<RegisterTable>[],
      ): void;
    }
  | { readonly offset: number; bytes(next: number): Uint8Array };

export function standardCapabilities(
  shape: FunctionDeclaration<unknown>,
  isVf: boolean,
): Capability[] {
  const { msiVectors = 0, msixVectors = 0, vendorSpecific } = shape;
  return [
    powerManagement(),
    ...(msiVectors > 0 ? [msi(msiVectors)] : []),
    pciExpress(isVf),
    ...(msixVectors > 0 ? [msix(msixVectors, shape.bars)] : []),
    ...(vendorSpecific === undefined ? [] : [vendor(vendorSpecific)]),
  ];
}

export function extendedCapabilities(
  device: DeviceDeclaration<unknown>,
  shape: FunctionDeclaration<unknown>,
  isVf: boolean,
): Capability[] {
  const { serialNumber } = device;
  return [
    extended(ExtendedCapabilityId.alternativeRoutingId, ARI_VERSION, {
      offset: Offset.ari,
      table: ARI,
      length: ARI_BYTES,
    }),
    ...(isVf ? [] : [sriov(device)]),
    ...(shape.advancedErrorReporting === true ? [advancedErrors()] : []),
    ...(isVf || serialNumber === undefined ? [] : [serial(serialNumber)]),
  ];
}

function powerManagement(): Capability {
  return {
    offset: Offset.powerManagement,
    table: POWER_MANAGEMENT,
    length: POWER_MANAGEMENT_BYTES,
    reset: (nextPointer) => ({
      capabilityId: CapabilityId.powerManagement,
      nextPointer,
      capabilities: registerValue(POWER_MANAGEMENT.capabilities, { version: 3 }),
      controlStatus: registerValue(POWER_MANAGEMENT.controlStatus, { noSoftReset: 1 }),
    }),
    written: (block, changes) => {
      for (const { register, before } of changes) {
        if (register === 'controlStatus') {
          keepSupportedPowerState(block, before);
        }
      }
    },
  };
}

function keepSupportedPowerState(block: RegisterBlock<RegisterTable>, controlBefore: number): void {
  const before = fieldOf(POWER_MANAGEMENT.controlStatus, 'powerState', controlBefore);
  const written = block.field('controlStatus', 'powerState');
  const after = powerStateAfter(written, before, block.get('capabilities'));
  block.setField('controlStatus', 'powerState', after);
}

function msi(vectors: number): Capability {
  const messageControl = registerValue(MSI_64.messageControl, {
    address64Capable: 1,
    multipleMessageCapable: Math.log2(vectors),
  });
  return {
    offset: Offset.msi,
    table: MSI_64,
    length: msiBytes(messageControl),
    reset: (nextPointer) => ({ capabilityId: CapabilityId.msi, nextPointer, messageControl }),
    writable: { messageControl: maskOf(MSI_64.messageControl, 'enable', 'multipleMessageEnable') },
  };
}

function pciExpress(isVf: boolean): Capability {
  const table = isVf ? VF_PCI_EXPRESS : PCI_EXPRESS;
  return {
    offset: Offset.pciExpress,
    table,
    length: PCI_EXPRESS_BYTES,
    reset: (nextPointer) => ({
      capabilityId: CapabilityId.pciExpress,
      nextPointer,
      capabilities: registerValue(table.capabilities, {
        version: 2,
        devicePortType: DevicePortType.endpoint,
      }),
      deviceCapabilities: registerValue(table.deviceCapabilities, {
        functionLevelReset: 1,
        roleBasedErrorReporting: 1,
      }),
      deviceControl: isVf ? 0 : DEVICE_CONTROL_AT_RESET,
      linkCapabilities: registerValue(table.linkCapabilities, { maxLinkSpeed: 1, maxLinkWidth: 1 }),
      linkStatus: registerValue(table.linkStatus, { currentLinkSpeed: 1, negotiatedLinkWidth: 1 }),
    }),
    // Bits of features that no device here claims are 0 for good.
    writable: PCI_EXPRESS_WRITABLE,
  };
}

const DEVICE_CONTROL_AT_RESET = registerValue(PCI_EXPRESS.deviceControl, {
  relaxedOrderingEnable: 1,
  noSnoopEnable: 1,
  maxReadRequestSize: 2,
});

const PCI_EXPRESS_WRITABLE = {
  linkControl: maskOf(
    PCI_EXPRESS.linkControl,
    'aspmControl',
    'readCompletionBoundary',
    'commonClockConfiguration',
    'extendedSynch',
  ),
  deviceControl2: maskOf(
    PCI_EXPRESS.deviceControl2,
    'completionTimeoutValue',
    'completionTimeoutDisable',
  ),
  linkControl2: 0,
};

function msix(vectors: number, bars: readonly BarDeclaration[]): Capability {
  const place = msixPlace(bars);
  if (place === undefined) {
    throw new RangeError(`${vectors} MSI-X vectors, but no BAR has a part for their table`);
  }
  return {
    offset: Offset.msix,
    table: MSIX,
    length: MSIX_BYTES,
    reset: (nextPointer) => ({
      capabilityId: CapabilityId.msix,
      nextPointer,
      messageControl: registerValue(MSIX.messageControl, { tableSize: vectors - 1 }),
      table: (place.at | place.bar) >>> 0,
      pendingBitArray: (place.pendingAt | place.bar) >>> 0,
    }),
  };
}

/** The MSI-X table's place: BAR, and offsets in it. */
function msixPlace(
  bars: readonly BarDeclaration[],
): { bar: number; at: number; pendingAt: number } | undefined {
  for (const { index, parts } of bars) {
    const part = parts.find(({ kind }) => kind === 'msix');
    if (part?.kind === 'msix') {
      return { bar: index, at: part.at, pendingAt: part.pendingAt };
    }
  }
  return undefined;
}

function vendor(content: Uint8Array): Capability {
  return {
    offset: Offset.vendorSpecific,
    bytes: (next) =>
      Uint8Array.of(CapabilityId.vendorSpecific, next, content.length + 3, ...content),
  };
}

function extended(
  id: number,
  version: number,
  { reset = {}, ...rest }: { offset: number; table: RegisterTable; length: number; reset?: Values },
): Capability {
  return { ...rest, reset: (next) => ({ ...reset, header: extendedHeader(id, version, next) }) };
}

/** Only read to find the capability: what a guest sees of SR-IOV is never the hardware's. */
function sriov({ totalVfs, vfDeviceId }: DeviceDeclaration<unknown>): Capability {
  return extended(ExtendedCapabilityId.sriov, SRIOV_VERSION, {
    offset: Offset.sriov,
    table: SRIOV,
    length: SRIOV_BYTES,
    reset: {
      initialVfs: totalVfs,
      totalVfs,
      ...ROUTING_ID_SPACING,
      vfDeviceId,
      supportedPageSizes: SUPPORTED_PAGE_SIZES,
      systemPageSize: 1,
    },
  });
}

function advancedErrors(): Capability {
  return extended(ExtendedCapabilityId.advancedErrorReporting, AER_VERSION, {
    offset: Offset.advancedErrors,
    table: AER,
    length: AER_BYTES,
    reset: {
      uncorrectableErrorSeverity: registerValue(AER.uncorrectableErrorSeverity, {
        dataLinkProtocolError: 1,
        surpriseDownError: 1,
        flowControlProtocolError: 1,
        receiverOverflow: 1,
        malformedTlp: 1,
        uncorrectableInternalError: 1,
      }),
      correctableErrorMask: registerValue(AER.correctableErrorMask, {
        advisoryNonFatalError: 1,
        correctedInternalError: 1,
        headerLogOverflow: 1,
      }),
    },
  });
}

function serial(serialNumber: bigint): Capability {
  return extended(ExtendedCapabilityId.deviceSerialNumber, SERIAL_NUMBER_VERSION, {
    offset: Offset.serialNumber,
    table: DEVICE_SERIAL_NUMBER,
    length: DEVICE_SERIAL_NUMBER_BYTES,
    reset: {
      serialNumberLow: Number(serialNumber & 0xffff_ffffn),
      serialNumberHigh: Number(serialNumber >> 32n),
    },
  });
}
