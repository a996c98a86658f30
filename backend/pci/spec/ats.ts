// Address Translation Services extended capability. PCIe Base 4.0, "ATS Extended Capability".

import { bit, bits, type RegisterTable, reg16 } from '../registers.ts';
import { EXTENDED_HEADER } from './extended-header.ts';

export const ATS_BYTES = 0x08;

export const ATS = {
  header: EXTENDED_HEADER,
  capability: reg16(0x04, {
    invalidateQueueDepth: bits(4, 0, 'ro'),
    pageAlignedRequest: bit(5, 'ro'),
    globalInvalidateSupported: bit(6, 'ro'),
  }),
  control: reg16(0x06, {
    /** Pages of 2^(12+n) bytes. */
    smallestTranslationUnit: bits(4, 0, 'rw'),
    enable: bit(15, 'rw'),
  }),
} satisfies RegisterTable;
