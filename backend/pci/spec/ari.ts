// Alternative Routing-ID Interpretation extended capability. PCIe Base 4.0, "ARI Extended Capability".
// Function groups are not served: their bits are read-only and stay 0.

import { bit, bits, type RegisterTable, reg16 } from '../registers.ts';
import { EXTENDED_HEADER } from './extended-header.ts';

export const ARI_BYTES = 0x08;
export const ARI_VERSION = 1;

export const ARI = {
  header: EXTENDED_HEADER,
  capability: reg16(0x04, {
    mfvcFunctionGroups: bit(0, 'ro'),
    acsFunctionGroups: bit(1, 'ro'),
    /** The next physical function of the device, 0 after the last; VFs are not in this list. */
    nextFunctionNumber: bits(15, 8, 'ro'),
  }),
  control: reg16(0x06, {
    mfvcFunctionGroupsEnable: bit(0, 'ro'),
    acsFunctionGroupsEnable: bit(1, 'ro'),
    functionGroup: bits(6, 4, 'ro'),
  }),
} satisfies RegisterTable;
