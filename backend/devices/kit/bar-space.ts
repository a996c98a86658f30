// What is in the BARs of one function: accesses are cut at the parts of a BAR, and each goes where its part leads. Memory
// pages are a memfd, which a VMM can map.

import { loadUint, storeUint } from '../../../protocol/little-endian.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { createMemfd, readAt, writeAt } from '../../../protocol/unix/memory.ts';
import { RegisterBlock } from '../../pci/register-block.ts';
import type { RegisterTable } from '../../pci/registers.ts';
import { MSIX_ENTRY, MSIX_ENTRY_BYTES } from '../../pci/spec/msix.ts';
import type { BarDeclaration, BarPart, BlockEvents } from './declaration.ts';

const MASKED = 1;

/** A part that is open; offsets count from its BAR's start, and stay inside. */
interface Room {
  readonly start: number;
  readonly end: number;
  read(offset: number, into: Uint8Array): void;
  write(offset: number, from: Uint8Array): void;
  reset(): void;
}

/** Accesses that the model answers by itself. */
export interface TrapHandlers {
  read(bar: number, offset: number, into: Uint8Array): void;
  write(bar: number, offset: number, from: Uint8Array): void;
}

/** Bytes `from` up to `to` of an access, which lie at `at`; no room: nothing is there. */
interface Piece {
  readonly room: Room | undefined;
  readonly at: number;
  readonly from: number;
  readonly to: number;
}

interface OpenBlock {
  readonly block: RegisterBlock<RegisterTable>;
  events: BlockEvents<RegisterTable>;
}

export class BarSpace {
  /** By BAR index, sorted by their start. */
  readonly #rooms: (readonly Room[])[] = [];
  /** By BAR index: a file as long as the BAR, where it has memory pages. */
  readonly #files: number[] = [];
  readonly #blocks = new Map<RegisterTable, OpenBlock>();
  readonly #traps: TrapHandlers;

  /** `name` is the memory's, for whoever looks at the process from outside. */
  constructor(
    name: string,
    bars: readonly BarDeclaration[],
    msixVectors: number,
    traps: TrapHandlers,
  ) {
    this.#traps = traps;
    for (const bar of bars) {
      if (bar.parts.some(({ kind }) => kind === 'ram')) {
        this.#files[bar.index] = createMemfd(`${name}-bar${bar.index}`, bar.size);
      }
      this.#rooms[bar.index] = bar.parts
        .flatMap((part) => this.#roomsOf(bar.index, part, msixVectors))
        .sort((one, other) => one.start - other.start);
    }
  }

  read(bar: number, offset: number, into: Uint8Array): void {
    for (const { room, at, from, to } of this.#pieces(bar, offset, into.length)) {
      const piece = into.subarray(from, to);
      if (room === undefined) {
        piece.fill(0);
      } else {
        room.read(at, piece);
      }
    }
  }

  write(bar: number, offset: number, bytes: Uint8Array): void {
    for (const { room, at, from, to } of this.#pieces(bar, offset, bytes.length)) {
      room?.write(at, bytes.subarray(from, to));
    }
  }

  file(bar: number): number | undefined {
    return this.#files[bar];
  }

  /** @throws RangeError for a table that no part was declared with, or that was asked for before. */
  block<T extends RegisterTable>(table: T, events: BlockEvents<T>): RegisterBlock<T> {
    const open = this.#blocks.get(table);
    if (open === undefined) {
      throw new RangeError(`no part of a BAR has registers ${Object.keys(table).join(', ')}`);
    }
    open.events = events as unknown as BlockEvents<RegisterTable>;
    return open.block as unknown as RegisterBlock<T>;
  }

  /** Registers get their reset values, MSI-X vectors are masked; memory pages keep what they hold. */
  reset(): void {
    for (const rooms of this.#rooms) {
      for (const room of rooms ?? []) {
        room.reset();
      }
    }
  }

  close(): void {
    for (const fd of this.#files) {
      if (fd !== undefined) {
        closeFd(fd);
      }
    }
  }

  /** An access cut up by the rooms that it is in, and what lies between them. */
  #pieces(bar: number, offset: number, length: number): Piece[] {
    const pieces: Piece[] = [];
    let at = offset;
    const end = offset + length;
    const upTo = (room: Room | undefined, stop: number): void => {
      if (stop > at) {
        pieces.push({ room, at, from: at - offset, to: stop - offset });
        at = stop;
      }
    };
    for (const room of this.#rooms[bar] ?? []) {
      if (room.end > at && room.start < end) {
        upTo(undefined, room.start);
        upTo(room, Math.min(end, room.end));
      }
    }
    upTo(undefined, end);
    return pieces;
  }

  #roomsOf(bar: number, part: BarPart, msixVectors: number): Room[] {
    switch (part.kind) {
      case 'ram':
        return [memoryRoom(this.#files[bar]!, part.at, part.size)];
      case 'trapped':
        return [
          {
            start: part.at,
            end: part.at + part.size,
            // What the model leaves out reads 0, and not as what was in the buffer before.
            read: (offset, into) => this.#traps.read(bar, offset, into.fill(0)),
            write: (offset, from) => this.#traps.write(bar, offset, from),
            reset: () => {},
          },
        ];
      case 'registers':
        return [this.#registerRoom(part)];
      case 'msix':
        return msixRooms(part.at, part.pendingAt, msixVectors);
      default:
        return part satisfies never;
    }
  }

  #registerRoom(part: Extract<BarPart, { kind: 'registers' }>): Room {
    const open: OpenBlock = {
      block: new RegisterBlock(part.table, { length: part.size, reset: part.reset }),
      events: {},
    };
    this.#blocks.set(part.table, open);
    return {
      start: part.at,
      end: part.at + part.size,
      read: (offset, into) => readBlock(open, part.table, offset - part.at, into),
      write: (offset, from) => writeBlock(open, part.table, offset - part.at, from),
      reset: () => open.block.reset(),
    };
  }
}

function memoryRoom(fd: number, start: number, size: number): Room {
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

function msixRooms(at: number, pendingAt: number, vectors: number): Room[] {
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
