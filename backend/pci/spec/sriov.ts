// SR-IOV extended capability. PCIe Base 4.0, "SR-IOV Extended Capability".
// VF migration and 10-bit tags are not served: their bits are read-only and stay 0.

import { bit, bits, type RegisterTable, reg8, reg16, reg32 } from '../registers.ts';
import { EXTENDED_HEADER } from './extended-header.ts';

export const SRIOV_BYTES = 0x40;
export const SRIOV_VERSION = 1;
/** Of one PF, whose bus has 256 routing IDs. */
export const MOST_VFS = 255;

export const SRIOV = {
  header: EXTENDED_HEADER,
  capabilities: reg32(0x04, {
    vfMigrationCapable: bit(0, 'ro'),
    ariCapableHierarchyPreserved: bit(1, 'ro'),
    vf10BitTagRequesterSupported: bit(2, 'ro'),
    vfMigrationInterruptMessageNumber: bits(31, 21, 'ro'),
  }),
  control: reg16(0x08, {
    vfEnable: bit(0, 'rw'),
    vfMigrationEnable: bit(1, 'ro'),
    vfMigrationInterruptEnable: bit(2, 'ro'),
    vfMemorySpaceEnable: bit(3, 'rw'),
    ariCapableHierarchy: bit(4, 'rw'),
    vf10BitTagRequesterEnable: bit(5, 'ro'),
  }),
  status: reg16(0x0a, { vfMigrationStatus: bit(0, 'ro') }),
  initialVfs: reg16(0x0c, 'ro'),
  totalVfs: reg16(0x0e, 'ro'),
  /** Can be written only while VF Enable is 0. */
  numVfs: reg16(0x10, 'rw'),
  functionDependencyLink: reg8(0x12, 'ro'),
  firstVfOffset: reg16(0x14, 'ro'),
  vfStride: reg16(0x16, 'ro'),
  vfDeviceId: reg16(0x1a, 'ro'),
  /** Bit n stands for pages of 2^(12+n) bytes. */
  supportedPageSizes: reg32(0x1c, 'ro'),
  /** Can be written only while VF Enable is 0. */
  systemPageSize: reg32(0x20, 'rw'),
  vfBar0: reg32(0x24, 'rw'),
  vfBar1: reg32(0x28, 'rw'),
  vfBar2: reg32(0x2c, 'rw'),
  vfBar3: reg32(0x30, 'rw'),
  vfBar4: reg32(0x34, 'rw'),
  vfBar5: reg32(0x38, 'rw'),
  /** `offset` is in units of 8 bytes. */
  vfMigrationStateArrayOffset: reg32(0x3c, {
    barIndicator: bits(2, 0, 'ro'),
    offset: bits(31, 3, 'ro'),
  }),
} satisfies RegisterTable;

/** The VF BAR registers by BAR index. */
export const VF_BAR_REGISTERS = [
  'vfBar0',
  'vfBar1',
  'vfBar2',
  'vfBar3',
  'vfBar4',
  'vfBar5',
] as const;
