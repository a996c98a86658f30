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
    this.#walk(bar, offset, into, (room, at, piece) => {
      if (room === undefined) {
        piece.fill(0);
      } else {
        room.read(at, piece);
      }
    });
  }

  write(bar: number, offset: number, from: Uint8Array): void {
    this.#walk(bar, offset, from, (room, at, piece) => room?.write(at, piece));
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

  #walk(
    bar: number,
    offset: number,
    bytes: Uint8Array,
    visit: (room: Room | undefined, at: number, piece: Uint8Array) => void,
  ): void {
    const rooms = this.#rooms[bar] ?? [];
    let at = offset;
    const end = offset + bytes.length;
    for (const room of rooms) {
      if (at >= end || room.start >= end) {
        break;
      }
      if (room.end <= at) {
        continue;
      }
      if (room.start > at) {
        visit(undefined, at, bytes.subarray(at - offset, room.start - offset));
        at = room.start;
      }
      const stop = Math.min(end, room.end);
      visit(room, at, bytes.subarray(at - offset, stop - offset));
      at = stop;
    }
    if (at < end) {
      visit(undefined, at, bytes.subarray(at - offset));
    }
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
            read: (offset, into) => this.#traps.read(bar, offset, into),
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
    for (const change of block.write(at, piece, loadUint(from, done, piece))) {
      const register = table[change.register]!;
      const whole = register.offset >= at && register.offset + register.bytes <= at + piece;
      events.written?.({ ...change, whole });
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
