// Which table describes which capability: from the number in a capability's header to its registers. Whoever wants to
// name a register, or know how long a capability is, asks here.

import { fieldOf, type RegisterTable } from '../registers.ts';
import { ACS } from './acs.ts';
import { AER } from './aer.ts';
import { ARI } from './ari.ts';
import { ATS } from './ats.ts';
import { CAPABILITY_HEADER } from './capability-header.ts';
import { CapabilityId, ExtendedCapabilityId } from './capability-ids.ts';
import { DEVICE_SERIAL_NUMBER } from './device-serial-number.ts';
import { EXTENDED_HEADER } from './extended-header.ts';
import { HEADER, VF_HEADER } from './header.ts';
import { MSI_32, MSI_32_MASKED, MSI_64, MSI_64_MASKED } from './msi.ts';
import { MSIX } from './msix.ts';
import { PCI_EXPRESS, VF_PCI_EXPRESS } from './pcie.ts';
import { POWER_MANAGEMENT } from './power-management.ts';
import { SRIOV } from './sriov.ts';
import {
  DESIGNATED_VENDOR_SPECIFIC,
  VENDOR_SPECIFIC,
  VENDOR_SPECIFIC_EXTENDED,
} from './vendor-specific.ts';

/** Which of the two a config space belongs to: the standard gives a VF other access rules. */
export type FunctionKind = 'pf' | 'vf';

/** What people call a capability, and its registers as `control` (its second word, little-endian) says they are. */
export interface CapabilityLayout {
  readonly title: string;
  table(kind: FunctionKind, control: number): RegisterTable;
}

/** The header's own layout. */
export function headerTable(kind: FunctionKind): RegisterTable {
  return kind === 'pf' ? HEADER : VF_HEADER;
}

const always = (table: RegisterTable) => (): RegisterTable => table;
function msiTable(_kind: FunctionKind, control: number): RegisterTable {
  const masked = fieldOf(MSI_64.messageControl, 'perVectorMaskingCapable', control) === 1;
  if (fieldOf(MSI_64.messageControl, 'address64Capable', control) === 1) {
    return masked ? MSI_64_MASKED : MSI_64;
  }
  return masked ? MSI_32_MASKED : MSI_32;
}

/** The first registers of a capability that has no table of its own. */
const UNKNOWN: RegisterTable = CAPABILITY_HEADER;
const UNKNOWN_EXTENDED: RegisterTable = { header: EXTENDED_HEADER };

/** By capability ID. */
export const STANDARD_LAYOUTS: Readonly<Record<number, CapabilityLayout>> = {
  [CapabilityId.powerManagement]: { title: 'PM', table: always(POWER_MANAGEMENT) },
  [CapabilityId.vitalProductData]: { title: 'VPD', table: always(UNKNOWN) },
  [CapabilityId.msi]: { title: 'MSI', table: msiTable },
  [CapabilityId.vendorSpecific]: { title: 'Vendor-Specific', table: always(VENDOR_SPECIFIC) },
  [CapabilityId.pciExpress]: {
    title: 'PCIe',
    table: (kind) => (kind === 'pf' ? PCI_EXPRESS : VF_PCI_EXPRESS),
  },
  [CapabilityId.msix]: { title: 'MSI-X', table: always(MSIX) },
  [CapabilityId.advancedFeatures]: { title: 'AF', table: always(UNKNOWN) },
};

/** By extended capability ID. */
export const EXTENDED_LAYOUTS: Readonly<Record<number, CapabilityLayout>> = {
  [ExtendedCapabilityId.advancedErrorReporting]: { title: 'AER', table: always(AER) },
  [ExtendedCapabilityId.deviceSerialNumber]: {
    title: 'DSN',
    table: always(DEVICE_SERIAL_NUMBER),
  },
  [ExtendedCapabilityId.accessControlServices]: { title: 'ACS', table: always(ACS) },
  [ExtendedCapabilityId.alternativeRoutingId]: { title: 'ARI', table: always(ARI) },
  [ExtendedCapabilityId.addressTranslationServices]: { title: 'ATS', table: always(ATS) },
  [ExtendedCapabilityId.vendorSpecific]: {
    title: 'VSEC',
    table: always(VENDOR_SPECIFIC_EXTENDED),
  },
  [ExtendedCapabilityId.designatedVendorSpecific]: {
    title: 'DVSEC',
    table: always(DESIGNATED_VENDOR_SPECIFIC),
  },
  [ExtendedCapabilityId.sriov]: { title: 'SR-IOV', table: always(SRIOV) },
};

/** What a standard capability of this ID looks like. */
export function standardLayout(id: number): CapabilityLayout {
  return (
    STANDARD_LAYOUTS[id] ?? { title: `Capability 0x${id.toString(16)}`, table: always(UNKNOWN) }
  );
}

/** What an extended capability of this ID looks like. */
export function extendedLayout(id: number): CapabilityLayout {
  return (
    EXTENDED_LAYOUTS[id] ?? {
      title: `Extended Capability 0x${id.toString(16)}`,
      table: always(UNKNOWN_EXTENDED),
    }
  );
}
