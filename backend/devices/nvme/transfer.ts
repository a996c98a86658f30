// Data of a command between its PRPs and this process.

import { type GuestMemory, gather, type Segment, scatter } from '../kit/guest-memory.ts';
import { prpSegments } from './prp.ts';
import type { Command } from './spec/commands.ts';
import { Status } from './spec/status.ts';

/** How a controller reaches the memory that a command names. */
export interface Transfer {
  readonly memory: GuestMemory;
  readonly pageBytes: number;
}

/** Copies `data` to where the command wants it. */
export function toHost(command: Command, data: Uint8Array, transfer: Transfer): Status {
  return move(command, data, transfer, scatter);
}

/** Fills `into` from where the command has it. */
export function fromHost(command: Command, into: Uint8Array, transfer: Transfer): Status {
  return move(command, into, transfer, gather);
}

/** Where a command's `length` bytes are, 1 or more; or why they are nowhere. */
export function segmentsOf(
  { prp1, prp2 }: Command,
  length: number,
  { memory, pageBytes }: Transfer,
): readonly Segment[] | Status {
  return prpSegments(prp1, prp2, length, pageBytes, memory);
}

function move(
  command: Command,
  bytes: Uint8Array,
  transfer: Transfer,
  copy: typeof gather,
): Status {
  if (bytes.length === 0) {
    return Status.success;
  }
  const segments = segmentsOf(command, bytes.length, transfer);
  if (typeof segments === 'number') {
    return segments;
  }
  const failed = copy(transfer.memory, segments, bytes);
  return failed === undefined ? Status.success : Status.dataTransferError;
}
