// MSI-X capability and one entry of its table in a BAR. PCIe Base 4.0, "MSI-X Capability and Table Structure".

import { bit, bits, type RegisterTable, reg8, reg16, reg32 } from '../registers.ts';

export const MSIX_BYTES = 0x0c;
/** What Table Size has room for. */
export const MOST_MSIX_VECTORS = 2048;

export const MSIX = {
  capabilityId: reg8(0x00, 'ro'),
  nextPointer: reg8(0x01, 'ro'),
  messageControl: reg16(0x02, {
    /** Number of vectors minus 1. */
    tableSize: bits(10, 0, 'ro'),
    functionMask: bit(14, 'rw'),
    enable: bit(15, 'rw'),
  }),
  /** `offset` is in units of 8 bytes. */
  table: reg32(0x04, { barIndicator: bits(2, 0, 'ro'), offset: bits(31, 3, 'ro') }),
  pendingBitArray: reg32(0x08, { barIndicator: bits(2, 0, 'ro'), offset: bits(31, 3, 'ro') }),
} satisfies RegisterTable;

export const MSIX_ENTRY_BYTES = 0x10;

export const MSIX_ENTRY = {
  messageAddress: reg32(0x00, { address: bits(31, 2, 'rw') }),
  messageUpperAddress: reg32(0x04, 'rw'),
  messageData: reg32(0x08, 'rw'),
  vectorControl: reg32(0x0c, { mask: bit(0, 'rw') }),
} satisfies RegisterTable;
