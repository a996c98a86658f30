// Power Management capability. PCI Power Management 1.2, "PCI Power Management Register Block".

import { bit, bits, type RegisterTable, reg8, reg16 } from '../registers.ts';

export const POWER_MANAGEMENT_BYTES = 0x08;

export const POWER_MANAGEMENT = {
  capabilityId: reg8(0x00, 'ro'),
  nextPointer: reg8(0x01, 'ro'),
  capabilities: reg16(0x02, {
    version: bits(2, 0, 'ro'),
    pmeClock: bit(3, 'ro'),
    immediateReadinessOnReturnToD0: bit(4, 'ro'),
    deviceSpecificInitialization: bit(5, 'ro'),
    auxCurrent: bits(8, 6, 'ro'),
    d1Support: bit(9, 'ro'),
    d2Support: bit(10, 'ro'),
    pmeSupport: bits(15, 11, 'ro'),
  }),
  controlStatus: reg16(0x04, {
    powerState: bits(1, 0, 'rw'),
    noSoftReset: bit(3, 'ro'),
    pmeEnable: bit(8, 'rw'),
    dataSelect: bits(12, 9, 'ro'),
    dataScale: bits(14, 13, 'ro'),
    pmeStatus: bit(15, 'rw1c'),
  }),
  data: reg8(0x07, 'ro'),
} satisfies RegisterTable;
