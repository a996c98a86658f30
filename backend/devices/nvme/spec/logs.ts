// Log pages. NVM Express 1.4, "Get Log Page command".

import { u8, u16, u32, u64 } from '../../../../protocol/record.ts';
import { ascii, at, structure } from './structure.ts';

export const LogPage = {
  errors: 0x01,
  smart: 0x02,
  firmware: 0x03,
  changedNamespaces: 0x04,
  commandEffects: 0x05,
} as const;

export const ERROR_ENTRY = structure(64, {
  count: at(0, u64),
  submissionQueue: at(8, u16),
  command: at(10, u16),
  /** As in a completion, Phase Tag included. */
  status: at(12, u16),
  parameterLocation: at(14, u16),
  firstBlock: at(16, u64),
  namespaceId: at(24, u32),
});

/** Bits of SMART's Critical Warning, and, as those that are told of, of Asynchronous Event Configuration. */
export const CriticalWarning = { temperature: 1 << 1 } as const;

/** Counters of 16 bytes: the lower 8 of each. */
export const SMART = structure(512, {
  criticalWarning: at(0, u8),
  /** In kelvin. */
  temperature: at(1, u16),
  /** In percent. */
  spare: at(3, u8),
  spareThreshold: at(4, u8),
  percentageUsed: at(5, u8),
  /** In thousands of 512 bytes. */
  dataUnitsRead: at(32, u64),
  dataUnitsWritten: at(48, u64),
  readCommands: at(64, u64),
  writeCommands: at(80, u64),
  powerCycles: at(112, u64),
  powerOnHours: at(128, u64),
  unsafeShutdowns: at(144, u64),
  errorLogEntries: at(176, u64),
});

export const FIRMWARE_SLOTS = structure(512, {
  /** AFI: bits 2:0, the active slot. */
  active: at(0, u8),
  slot1: at(8, ascii(8)),
});

export const COMMAND_EFFECTS_BYTES = 4096;
export const ADMIN_EFFECTS = 0;
export const IO_EFFECTS = 1024;
/** Of one opcode's 4 bytes: it is supported; it changes blocks. */
export const Effect = { supported: 1 << 0, changesBlocks: 1 << 1 } as const;

/** What an Asynchronous Event Request's completion says: type in bits 2:0, information in 15:8, log page in 23:16. */
export const AsynchronousEvent = {
  invalidDoorbell: { type: 0, information: 0, logPage: LogPage.errors },
  invalidDoorbellValue: { type: 0, information: 1, logPage: LogPage.errors },
  temperatureThreshold: { type: 1, information: 1, logPage: LogPage.smart },
} as const;
export type AsynchronousEvent = (typeof AsynchronousEvent)[keyof typeof AsynchronousEvent];
