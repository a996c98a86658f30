// What is in the BARs of one function: accesses are cut at the parts of a BAR, and each goes to the room of its part
// (bar-rooms.ts). Memory pages are a memfd, which a VMM can map.

import { closeFd } from '../../../protocol/unix/libc.ts';
import { createMemfd } from '../../../protocol/unix/memory.ts';
import { RegisterBlock } from '../../pci/register-block.ts';
import { RegisterLayout } from '../../pci/register-layout.ts';
import type { RegisterTable } from '../../pci/registers.ts';
import {
  memoryRoom,
  msixRooms,
  type OpenBlock,
  type RegisterPart,
  type Room,
  registerRoom,
} from './bar-rooms.ts';
import type { BarDeclaration, BarPart, BlockEvents } from './declaration.ts';

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

/** The BARs of all functions of one kind, before any is open. */
export interface BarPlan {
  readonly bars: readonly BarDeclaration[];
  /** Of their parts that are registers. */
  readonly layouts: ReadonlyMap<BarPart, RegisterLayout<RegisterTable>>;
  readonly msixVectors: number;
}

export function planBars(bars: readonly BarDeclaration[], msixVectors: number): BarPlan {
  const layouts = new Map<BarPart, RegisterLayout<RegisterTable>>();
  for (const part of bars.flatMap(({ parts }) => parts)) {
    if (part.kind === 'registers') {
      const { table, size, reset } = part;
      layouts.set(part, new RegisterLayout(table, { length: size, reset }));
    }
  }
  return { bars, layouts, msixVectors };
}

export class BarSpace {
  /** By BAR index, sorted by their start. */
  readonly #rooms: (readonly Room[])[] = [];
  /** By BAR index: a file as long as the BAR, where it has memory pages. */
  readonly #files: number[] = [];
  readonly #blocks = new Map<RegisterTable, OpenBlock>();
  readonly #traps: TrapHandlers;

  /** `name` is the memory's, for whoever looks at the process from outside. */
  constructor(name: string, plan: BarPlan, traps: TrapHandlers) {
    this.#traps = traps;
    for (const bar of plan.bars) {
      if (bar.parts.some(({ kind }) => kind === 'ram')) {
        this.#files[bar.index] = createMemfd(`${name}-bar${bar.index}`, bar.size);
      }
      this.#rooms[bar.index] = bar.parts
        .flatMap((part) => this.#roomsOf(bar.index, part, plan))
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

  #roomsOf(bar: number, part: BarPart, plan: BarPlan): Room[] {
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
        return [this.#registerRoom(part, plan.layouts.get(part)!)];
      case 'msix':
        return msixRooms(part.at, part.pendingAt, plan.msixVectors);
      default:
        return part satisfies never;
    }
  }

  #registerRoom(part: RegisterPart, layout: RegisterLayout<RegisterTable>): Room {
    const open: OpenBlock = { block: new RegisterBlock(layout), events: {} };
    this.#blocks.set(part.table, open);
    return registerRoom(part, open);
  }
}
