// What opens the capabilities whose registers are the vendor's own: each says how long it is. PCI Local Bus 3.0,
// "Vendor Specific"; PCIe Base 4.0, "Vendor-Specific Extended Capability", "Designated Vendor-Specific Extended Capability".

import { bits, type RegisterTable, reg8, reg16, reg32 } from '../registers.ts';
import { CAPABILITY_HEADER } from './capability-header.ts';
import { EXTENDED_HEADER } from './extended-header.ts';

export const VENDOR_SPECIFIC = {
  ...CAPABILITY_HEADER,
  /** Of the whole capability, in bytes. */
  length: reg8(0x02, 'ro'),
} satisfies RegisterTable;

export const VENDOR_SPECIFIC_EXTENDED = {
  header: EXTENDED_HEADER,
  /** `length` in bytes, of the whole capability. */
  vendorSpecificHeader: reg32(0x04, {
    vendorSpecificId: bits(15, 0, 'ro'),
    revision: bits(19, 16, 'ro'),
    length: bits(31, 20, 'ro'),
  }),
} satisfies RegisterTable;

export const DESIGNATED_VENDOR_SPECIFIC = {
  header: EXTENDED_HEADER,
  vendorHeader1: reg32(0x04, {
    vendorId: bits(15, 0, 'ro'),
    revision: bits(19, 16, 'ro'),
    length: bits(31, 20, 'ro'),
  }),
  vendorHeader2: reg16(0x08, { vendorSpecificId: bits(15, 0, 'ro') }),
} satisfies RegisterTable;
