// The rooms of a BAR, by kind of the parts that a device declares: planned once for all functions of one kind, and opened for
// each: what reads and writes come to there, and a reset.

import { loadUint, storeUint } from '../../../protocol/little-endian.ts';
import { readAt, writeAt } from '../../../protocol/unix/memory.ts';
import { CopyOnWrite } from '../../pci/copy-on-write.ts';
import { RegisterBlock } from '../../pci/register-block.ts';
import { RegisterLayout } from '../../pci/register-layout.ts';
import type { RegisterTable } from '../../pci/registers.ts';
import { MSIX_ENTRY, MSIX_ENTRY_BYTES } from '../../pci/spec/msix.ts';
import type { BarDeclaration, BarPart, BlockEvents } from './declaration.ts';

const MASKED = 1;

type RegisterPart = Extract<BarPart, { kind: 'registers' }>;

/** Accesses that the model answers by itself. */
export interface TrapHandlers {
  read(bar: number, offset: number, into: Uint8Array): void;
  write(bar: number, offset: number, from: Uint8Array): void;
}

/** A part that is open; offsets count from its BAR's start, and stay inside. */
export interface Room {
  read(offset: number, into: Uint8Array): void;
  write(offset: number, from: Uint8Array): void;
  reset(): void;
}

/** Registers, and who hears of accesses to them: nobody until the model is made. */
export interface OpenBlock {
  readonly block: RegisterBlock<RegisterTable>;
  events: BlockEvents<RegisterTable>;
}

/** What the rooms of a function share. */
export interface RoomSpace {
  /** A file as long as the BAR, where it has memory pages. */
  file(bar: number): number | undefined;
  readonly traps: TrapHandlers;
  readonly blocks: Map<RegisterTable, OpenBlock>;
}

/** A room of all functions of one kind, from `start` up to `end` of its BAR. */
export interface RoomPlan {
  readonly start: number;
  readonly end: number;
  open(space: RoomSpace): Room;
}

/** Of a BAR, sorted by their start. */
export function planRooms({ index, parts }: BarDeclaration, msixVectors: number): RoomPlan[] {
  return parts
    .flatMap((part) => roomsOf(index, part, msixVectors))
    .sort((one, other) => one.start - other.start);
}

function roomsOf(bar: number, part: BarPart, msixVectors: number): RoomPlan[] {
  switch (part.kind) {
    case 'ram':
      return [planned(part, (space) => memoryRoom(space.file(bar)!))];
    case 'trapped':
      return [planned(part, ({ traps }) => trappedRoom(bar, traps))];
    case 'registers':
      return [registerRoom(part)];
    case 'msix':
      return [tableRoom(part.at, msixVectors), pendingRoom(part.pendingAt, msixVectors)];
    default:
      return part satisfies never;
  }
}

function planned({ at, size }: { at: number; size: number }, open: RoomPlan['open']): RoomPlan {
  return { start: at, end: at + size, open };
}

function memoryRoom(fd: number): Room {
  return {
    read: (offset, into) => void readAt(fd, into, offset),
    write: (offset, from) => void writeAt(fd, from, offset),
    reset: () => {},
  };
}

function trappedRoom(bar: number, traps: TrapHandlers): Room {
  return {
    // What the model leaves out reads 0, and not as what was in the buffer before.
    read: (offset, into) => traps.read(bar, offset, into.fill(0)),
    write: (offset, from) => traps.write(bar, offset, from),
    reset: () => {},
  };
}

/** MSI-X vectors, which are masked after a reset. */
function tableRoom(at: number, vectors: number): RoomPlan {
  const masked = new Uint8Array(vectors * MSIX_ENTRY_BYTES);
  for (let vector = 0; vector < vectors; vector++) {
    masked[vector * MSIX_ENTRY_BYTES + MSIX_ENTRY.vectorControl.offset] = MASKED;
  }
  return planned({ at, size: masked.length }, () => {
    const table = new CopyOnWrite(masked);
    return {
      read: (offset, into) =>
        into.set(table.bytes.subarray(offset - at, offset - at + into.length)),
      write: (offset, from) => table.writable.set(from, offset - at),
      reset: () => table.reset(),
    };
  });
}

/** The Pending Bit Array: nothing is ever pending. */
function pendingRoom(at: number, vectors: number): RoomPlan {
  const room: Room = {
    read: (_offset, into) => void into.fill(0),
    write: () => {},
    reset: () => {},
  };
  return planned({ at, size: Math.ceil(vectors / 64) * 8 }, () => room);
}

function registerRoom(part: RegisterPart): RoomPlan {
  const { at, size, table, reset } = part;
  const layout = new RegisterLayout(table, { length: size, reset });
  return planned(part, ({ blocks }) => {
    const open: OpenBlock = { block: new RegisterBlock(layout), events: {} };
    blocks.set(table, open);
    return {
      read: (offset, into) => readBlock(open, table, offset - at, into),
      write: (offset, from) => writeBlock(open, table, offset - at, from),
      reset: () => open.block.reset(),
    };
  });
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
