// The rooms of a BAR, one for each kind of part that a device declares: what reads and writes come to there, and a reset.

import { loadUint, storeUint } from '../../../protocol/little-endian.ts';
import { readAt, writeAt } from '../../../protocol/unix/memory.ts';
import type { RegisterBlock } from '../../pci/register-block.ts';
import type { RegisterTable } from '../../pci/registers.ts';
import { MSIX_ENTRY, MSIX_ENTRY_BYTES } from '../../pci/spec/msix.ts';
import type { BarPart, BlockEvents } from './declaration.ts';

const MASKED = 1;

export type RegisterPart = Extract<BarPart, { kind: 'registers' }>;

/** A part that is open; offsets count from its BAR's start, and stay inside. */
export interface Room {
  readonly start: number;
  readonly end: number;
  read(offset: number, into: Uint8Array): void;
  write(offset: number, from: Uint8Array): void;
  reset(): void;
}

/** Registers, and who hears of accesses to them: nobody until the model is made. */
export interface OpenBlock {
  readonly block: RegisterBlock<RegisterTable>;
  events: BlockEvents<RegisterTable>;
}

export function memoryRoom(fd: number, start: number, size: number): Room {
  return {
    start,
    end: start + size,
    read: (offset, into) => void readAt(fd, into, offset),
    write: (offset, from) => void writeAt(fd, from, offset),
    reset: () => {},
  };
}

function bytesRoom(start: number, bytes: Uint8Array, reset: () => void): Room {
  return {
    start,
    end: start + bytes.length,
    read: (offset, into) => into.set(bytes.subarray(offset - start, offset - start + into.length)),
    write: (offset, from) => bytes.set(from, offset - start),
    reset,
  };
}

export function msixRooms(at: number, pendingAt: number, vectors: number): Room[] {
  const table = new Uint8Array(vectors * MSIX_ENTRY_BYTES);
  const maskAll = (): void => {
    table.fill(0);
    for (let vector = 0; vector < vectors; vector++) {
      table[vector * MSIX_ENTRY_BYTES + MSIX_ENTRY.vectorControl.offset] = MASKED;
    }
  };
  maskAll();
  const pending: Room = {
    start: pendingAt,
    end: pendingAt + Math.ceil(vectors / 64) * 8,
    read: (_offset, into) => void into.fill(0),
    write: () => {},
    reset: () => {},
  };
  return [bytesRoom(at, table, maskAll), pending];
}

export function registerRoom({ at, size, table }: RegisterPart, open: OpenBlock): Room {
  return {
    start: at,
    end: at + size,
    read: (offset, into) => readBlock(open, table, offset - at, into),
    write: (offset, from) => writeBlock(open, table, offset - at, from),
    reset: () => open.block.reset(),
  };
}

function readBlock(
  { block, events }: OpenBlock,
  table: RegisterTable,
  offset: number,
  into: Uint8Array,
): void {
  if (events.reading !== undefined) {
    for (const [name, register] of Object.entries(table)) {
      if (register.offset < offset + into.length && register.offset + register.bytes > offset) {
        events.reading(name);
      }
    }
  }
  for (let done = 0; done < into.length; ) {
    const piece = pieceOf(offset + done, into.length - done);
    const value = block.read(offset + done, piece);
    storeUint(into, done, piece, value);
    done += piece;
  }
}

function writeBlock(
  { block, events }: OpenBlock,
  table: RegisterTable,
  offset: number,
  from: Uint8Array,
): void {
  for (let done = 0; done < from.length; ) {
    const at = offset + done;
    const piece = pieceOf(at, from.length - done);
    for (const { register, before, after } of block.write(at, piece, loadUint(from, done, piece))) {
      const { offset: first, bytes } = table[register]!;
      const whole = first >= at && first + bytes <= at + piece;
      // Not by spreading: what V8 allocates for that outlives its quick collections, and slow ones stop the thread for 6 ms.
      events.written?.({ register, before, after, whole });
    }
    done += piece;
  }
}

function pieceOf(offset: number, remaining: number): 1 | 2 | 4 {
  if (offset % 4 === 0 && remaining >= 4) {
    return 4;
  }
  return offset % 2 === 0 && remaining >= 2 ? 2 : 1;
}
