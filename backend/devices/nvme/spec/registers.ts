// Controller registers at the start of BAR 0. NVM Express 1.4, "Controller Registers"; 64-bit ones as two halves.

import { bit, bits, type RegisterTable, reg32 } from '../../../pci/registers.ts';

export const CONTROLLER = {
  /** CAP, lower half. */
  capabilitiesLow: reg32(0x00, {
    /** MQES, 0's based. */
    maximumQueueEntries: bits(15, 0, 'ro'),
    /** CQR. */
    contiguousQueuesRequired: bit(16, 'ro'),
    arbitrationMechanisms: bits(18, 17, 'ro'),
    /** TO, in units of 500 ms. */
    timeout: bits(31, 24, 'ro'),
  }),
  capabilitiesHigh: reg32(0x04, {
    /** DSTRD: doorbells are 4 << stride bytes apart. */
    doorbellStride: bits(3, 0, 'ro'),
    subsystemResetSupported: bit(4, 'ro'),
    /** CSS, bit 0: the NVM command set. */
    commandSets: bits(12, 5, 'ro'),
    /** MPSMIN and MPSMAX: pages of 4096 << n bytes. */
    smallestPage: bits(19, 16, 'ro'),
    largestPage: bits(23, 20, 'ro'),
  }),
  /** VS. */
  version: reg32(0x08, 'ro'),
  /** INTMS and INTMC: for pins and MSI; with MSI-X they have no effect. */
  interruptMaskSet: reg32(0x0c, 'rw'),
  interruptMaskClear: reg32(0x10, 'rw'),
  /** CC. */
  configuration: reg32(0x14, {
    enable: bit(0, 'rw'),
    commandSet: bits(6, 4, 'rw'),
    /** MPS. */
    pageSize: bits(10, 7, 'rw'),
    arbitration: bits(13, 11, 'rw'),
    /** SHN: 1 normal, 2 abrupt. */
    shutdownNotification: bits(15, 14, 'rw'),
    /** IOSQES and IOCQES, as powers of two. */
    submissionEntrySize: bits(19, 16, 'rw'),
    completionEntrySize: bits(23, 20, 'rw'),
  }),
  /** CSTS. */
  status: reg32(0x1c, {
    ready: bit(0, 'ro'),
    /** CFS. */
    fatal: bit(1, 'ro'),
    /** SHST: 1 occurring, 2 complete. */
    shutdownStatus: bits(3, 2, 'ro'),
    subsystemResetOccurred: bit(4, 'ro'),
  }),
  /** AQA, both 0's based. */
  adminQueueAttributes: reg32(0x24, {
    submissionSize: bits(11, 0, 'rw'),
    completionSize: bits(27, 16, 'rw'),
  }),
  /** ASQ and ACQ: page-aligned addresses. */
  adminSubmissionLow: reg32(0x28, { address: bits(31, 12, 'rw') }),
  adminSubmissionHigh: reg32(0x2c, 'rw'),
  adminCompletionLow: reg32(0x30, { address: bits(31, 12, 'rw') }),
  adminCompletionHigh: reg32(0x34, 'rw'),
} satisfies RegisterTable;

/** What the standard, and every driver, calls them; 64-bit ones by half. */
export const CONTROLLER_NAMES: Readonly<Record<keyof typeof CONTROLLER, string>> = {
  capabilitiesLow: 'CAP Low',
  capabilitiesHigh: 'CAP High',
  version: 'VS',
  interruptMaskSet: 'INTMS',
  interruptMaskClear: 'INTMC',
  configuration: 'CC',
  status: 'CSTS',
  adminQueueAttributes: 'AQA',
  adminSubmissionLow: 'ASQ Low',
  adminSubmissionHigh: 'ASQ High',
  adminCompletionLow: 'ACQ Low',
  adminCompletionHigh: 'ACQ High',
};

export const VERSION_1_4 = 0x0001_0400;

/** Where doorbells start in BAR 0. */
export const DOORBELLS = 0x1000;

export const ShutdownStatus = { normal: 0, occurring: 1, complete: 2 } as const;
