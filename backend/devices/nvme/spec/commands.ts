// Submission and completion queue entries, and opcodes. NVM Express 1.4, "Submission Queue Entry", "Completion Queue
// Entry", "Opcodes for Admin Commands" and "Opcodes for NVM Commands".

import { writeU32 } from '../../../../protocol/record.ts';
import { type Status, statusField } from './status.ts';

export const SUBMISSION_ENTRY_BYTES = 64;
export const COMPLETION_ENTRY_BYTES = 16;
/** The same as IOSQES and IOCQES say them. */
export const SUBMISSION_ENTRY_SHIFT = 6;
export const COMPLETION_ENTRY_SHIFT = 4;

export const AdminOpcode = {
  deleteSubmissionQueue: 0x00,
  createSubmissionQueue: 0x01,
  getLogPage: 0x02,
  deleteCompletionQueue: 0x04,
  createCompletionQueue: 0x05,
  identify: 0x06,
  abort: 0x08,
  setFeatures: 0x09,
  getFeatures: 0x0a,
  asynchronousEventRequest: 0x0c,
  virtualizationManagement: 0x1c,
  doorbellBufferConfig: 0x7c,
} as const;

export const IoOpcode = {
  flush: 0x00,
  write: 0x01,
  read: 0x02,
  compare: 0x05,
  writeZeroes: 0x08,
  datasetManagement: 0x09,
} as const;

/** A submission queue entry; `dword10` to `dword15` are the command's own. */
export interface Command {
  readonly opcode: number;
  /** FUSE, and PSDT: 0 where data is described by PRPs. */
  readonly fused: number;
  readonly dataTransfer: number;
  /** CID. */
  readonly identifier: number;
  readonly namespaceId: number;
  readonly prp1: bigint;
  readonly prp2: bigint;
  readonly dword10: number;
  readonly dword11: number;
  readonly dword12: number;
  readonly dword13: number;
  readonly dword14: number;
  readonly dword15: number;
}

/** Reads the entry at byte `at`. */
export function decodeCommand(view: DataView, at: number): Command {
  const dword0 = view.getUint32(at, true);
  return {
    opcode: dword0 & 0xff,
    fused: (dword0 >>> 8) & 0x3,
    dataTransfer: (dword0 >>> 14) & 0x3,
    identifier: dword0 >>> 16,
    namespaceId: view.getUint32(at + 4, true),
    prp1: view.getBigUint64(at + 24, true),
    prp2: view.getBigUint64(at + 32, true),
    dword10: view.getUint32(at + 40, true),
    dword11: view.getUint32(at + 44, true),
    dword12: view.getUint32(at + 48, true),
    dword13: view.getUint32(at + 52, true),
    dword14: view.getUint32(at + 56, true),
    dword15: view.getUint32(at + 60, true),
  };
}

export interface Completion {
  /** Dword 0, the command's own. */
  readonly result: number;
  readonly submissionHead: number;
  readonly submissionQueue: number;
  readonly identifier: number;
  readonly status: Status;
}

/** Writes the entry, Phase Tag included, into 16 bytes. */
export function encodeCompletion(completion: Completion, phase: 0 | 1, into: Uint8Array): void {
  writeU32(into, 0, completion.result);
  writeU32(into, 4, 0);
  writeU32(into, 8, completion.submissionHead | (completion.submissionQueue << 16));
  const status = statusField(completion.status) | phase;
  writeU32(into, 12, completion.identifier | (status << 16));
}
