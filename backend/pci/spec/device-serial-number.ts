// Device Serial Number extended capability: an EUI-64. PCIe Base 4.0, "Device Serial Number Extended Capability".

import { type RegisterTable, reg32 } from '../registers.ts';
import { EXTENDED_HEADER } from './extended-header.ts';

export const DEVICE_SERIAL_NUMBER_BYTES = 0x0c;

export const DEVICE_SERIAL_NUMBER = {
  header: EXTENDED_HEADER,
  serialNumberLow: reg32(0x04, 'ro'),
  serialNumberHigh: reg32(0x08, 'ro'),
} satisfies RegisterTable;
