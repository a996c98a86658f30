// The config space of a loopback function, as its hardware would show it: register tables, nothing virtualised yet.

import { type BarShape, barRegisterValue, barWriteMasks } from '../../pci/bars.ts';
import { ConfigSpace, tableOwner } from '../../pci/config-space.ts';
import { powerStateAfter } from '../../pci/power-state.ts';
import { type Change, RegisterBlock } from '../../pci/register-block.ts';
import { fieldOf, maskOf, type RegisterTable, registerValue } from '../../pci/registers.ts';
import { ARI, ARI_BYTES, ARI_VERSION } from '../../pci/spec/ari.ts';
import { CapabilityId, ExtendedCapabilityId } from '../../pci/spec/capability-ids.ts';
import { extendedHeader } from '../../pci/spec/extended-header.ts';
import {
  BAR_REGISTERS,
  EXTENDED_CONFIG_BYTES,
  HEADER,
  HEADER_BYTES,
  VF_HEADER,
} from '../../pci/spec/header.ts';
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
import { Layout } from './registers.ts';

export const Ids = { vendor: 0x1234, pfDevice: 0x10b0, vfDevice: 0x10b1 } as const;

/** Where the capabilities sit. */
export const Offset = {
  powerManagement: 0x40,
  msi: 0x50,
  pciExpress: 0x70,
  msix: 0xb0,
  ari: 0x100,
  sriov: 0x110,
} as const;

const REVISION = 1;
/** Processing accelerator. */
const BASE_CLASS = 0x12;
const MSI_CONTROL = registerValue(MSI_64.messageControl, { address64Capable: 1 });

const DEVICE_CONTROL_AT_RESET = registerValue(PCI_EXPRESS.deviceControl, {
  relaxedOrderingEnable: 1,
  noSnoopEnable: 1,
  maxReadRequestSize: 2,
});
const WRITABLE = {
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

/** What the device side of a function needs of its own config space. */
export interface LoopbackConfig {
  readonly space: ConfigSpace;
  readonly busMasterEnable: () => boolean;
  readonly reset: () => void;
}

export interface ConfigOptions {
  readonly isVf: boolean;
  readonly bars: readonly BarShape[];
  readonly msixVectors: number;
  /** Only read to find the capability: what a guest sees of SR-IOV is never the hardware's. */
  readonly totalVfs: number;
}

export function loopbackConfig(options: ConfigOptions): LoopbackConfig {
  const header = headerBlock(options);
  const powerManagement = new RegisterBlock(POWER_MANAGEMENT, {
    length: POWER_MANAGEMENT_BYTES,
    reset: {
      capabilityId: CapabilityId.powerManagement,
      nextPointer: options.isVf ? Offset.pciExpress : Offset.msi,
      capabilities: registerValue(POWER_MANAGEMENT.capabilities, { version: 3 }),
      controlStatus: registerValue(POWER_MANAGEMENT.controlStatus, { noSoftReset: 1 }),
    },
  });
  const msi = new RegisterBlock(MSI_64, {
    length: msiBytes(MSI_CONTROL),
    reset: {
      capabilityId: CapabilityId.msi,
      nextPointer: Offset.pciExpress,
      messageControl: MSI_CONTROL,
    },
  });
  msi.setWriteMask(
    'messageControl',
    maskOf(MSI_64.messageControl, 'enable', 'multipleMessageEnable'),
  );
  const pciExpress = pciExpressBlock(options.isVf);
  const msix = new RegisterBlock(MSIX, {
    length: MSIX_BYTES,
    reset: {
      capabilityId: CapabilityId.msix,
      messageControl: registerValue(MSIX.messageControl, { tableSize: options.msixVectors - 1 }),
      table: Layout.msixTable,
      pendingBitArray: Layout.msixPending,
    },
  });
  const ari = new RegisterBlock(ARI, {
    length: ARI_BYTES,
    reset: {
      header: extendedHeader(
        ExtendedCapabilityId.alternativeRoutingId,
        ARI_VERSION,
        options.isVf ? 0 : Offset.sriov,
      ),
    },
  });
  const placed = [
    place(0, header),
    place(Offset.powerManagement, powerManagement, (changes) => {
      for (const { register, before } of changes) {
        if (register === 'controlStatus') {
          keepSupportedPowerState(powerManagement, before);
        }
      }
    }),
    place(Offset.pciExpress, pciExpress),
    place(Offset.msix, msix),
    place(Offset.ari, ari),
    ...(options.isVf ? [] : [place(Offset.msi, msi), place(Offset.sriov, sriovBlock(options))]),
  ];
  return {
    space: new ConfigSpace(
      EXTENDED_CONFIG_BYTES,
      placed.map(({ owner }) => owner),
    ),
    busMasterEnable: () => header.field('command', 'busMasterEnable') === 1,
    reset: () => {
      for (const { reset } of placed) {
        reset();
      }
    },
  };
}

/** Hardware registers, mostly without side effects: what a write means is decided above the port. */
function place<T extends RegisterTable>(
  offset: number,
  block: RegisterBlock<T>,
  written: (changes: readonly Change<T>[]) => void = () => {},
) {
  return { owner: tableOwner(offset, block, written), reset: () => block.reset() };
}

function keepSupportedPowerState(
  block: RegisterBlock<typeof POWER_MANAGEMENT>,
  controlBefore: number,
): void {
  const before = fieldOf(POWER_MANAGEMENT.controlStatus, 'powerState', controlBefore);
  const written = block.field('controlStatus', 'powerState');
  const after = powerStateAfter(written, before, block.get('capabilities'));
  block.setField('controlStatus', 'powerState', after);
}

function headerBlock(options: ConfigOptions): RegisterBlock<typeof HEADER> {
  const reset: Partial<Record<keyof typeof HEADER, number>> = {
    vendorId: Ids.vendor,
    deviceId: options.isVf ? Ids.vfDevice : Ids.pfDevice,
    status: registerValue(HEADER.status, { capabilitiesList: 1 }),
    revisionId: REVISION,
    baseClass: BASE_CLASS,
    subsystemVendorId: Ids.vendor,
    subsystemId: Ids.pfDevice,
    capabilitiesPointer: Offset.powerManagement,
  };
  for (const bar of options.bars) {
    reset[BAR_REGISTERS[bar.index]!] = barRegisterValue(bar);
  }
  const table = options.isVf ? VF_HEADER : HEADER;
  const block = new RegisterBlock(table, { length: HEADER_BYTES, reset });
  for (const name of BAR_REGISTERS) {
    block.setWriteMask(name, 0);
  }
  block.setWriteMask('expansionRomBase', 0);
  for (const bar of options.bars) {
    const { low, high } = barWriteMasks(bar);
    block.setWriteMask(BAR_REGISTERS[bar.index]!, low);
    if (bar.kind === 'memory64') {
      block.setWriteMask(BAR_REGISTERS[bar.index + 1]!, high);
    }
  }
  return block as RegisterBlock<typeof HEADER>;
}

function pciExpressBlock(isVf: boolean) {
  const table = isVf ? VF_PCI_EXPRESS : PCI_EXPRESS;
  const block = new RegisterBlock<RegisterTable>(table, {
    length: PCI_EXPRESS_BYTES,
    reset: {
      capabilityId: CapabilityId.pciExpress,
      nextPointer: Offset.msix,
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
    },
  });
  // Bits of features that this device does not claim are 0 for good.
  for (const [name, mask] of Object.entries(WRITABLE)) {
    block.setWriteMask(name, mask);
  }
  return block;
}

function sriovBlock(options: ConfigOptions): RegisterBlock<typeof SRIOV> {
  return new RegisterBlock(SRIOV, {
    length: SRIOV_BYTES,
    reset: {
      header: extendedHeader(ExtendedCapabilityId.sriov, SRIOV_VERSION, 0),
      initialVfs: options.totalVfs,
      totalVfs: options.totalVfs,
      firstVfOffset: 1,
      vfStride: 1,
      vfDeviceId: Ids.vfDevice,
      supportedPageSizes: SUPPORTED_PAGE_SIZES,
      systemPageSize: 1,
    },
  });
}
