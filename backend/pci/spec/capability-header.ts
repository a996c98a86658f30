// The two bytes that open every capability below 0x100. PCIe Base 4.0, "PCI-Compatible Configuration Registers".

import { type RegisterTable, reg8 } from '../registers.ts';

export const CAPABILITY_HEADER = {
  capabilityId: reg8(0x00, 'ro'),
  nextPointer: reg8(0x01, 'ro'),
} satisfies RegisterTable;
