// Data of a command between its PRPs and this process.

import { type GuestMemory, gather, scatter } from '../kit/guest-memory.ts';
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

function move(
  { prp1, prp2 }: Command,
  bytes: Uint8Array,
  { memory, pageBytes }: Transfer,
  copy: typeof gather,
): Status {
  if (bytes.length === 0) {
    return Status.success;
  }
  const segments = prpSegments(prp1, prp2, bytes.length, pageBytes, memory);
  if (typeof segments === 'number') {
    return segments;
  }
  return copy(memory, segments, bytes) === undefined ? Status.success : Status.dataTransferError;
}
