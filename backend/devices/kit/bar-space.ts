// What is in the BARs of one function: accesses are cut at the parts of a BAR, and each goes to the room of its part
// (bar-rooms.ts). Memory pages are a memfd, which a VMM can map.

import { closeFd } from '../../../protocol/unix/libc.ts';
import { createMemfd } from '../../../protocol/unix/memory.ts';
import type { RegisterBlock } from '../../pci/register-block.ts';
import type { RegisterTable } from '../../pci/registers.ts';
import {
  type OpenBlock,
  planRooms,
  type Room,
  type RoomPlan,
  type RoomSpace,
  type TrapHandlers,
} from './bar-rooms.ts';
import type { BarDeclaration, BlockEvents } from './declaration.ts';

/** Bytes `from` up to `to` of an access, which lie at `at`; no room: nothing is there. */
interface Piece {
  readonly room: Room | undefined;
  readonly at: number;
  readonly from: number;
  readonly to: number;
}

/** A BAR of all functions of one kind, before any is open. */
export interface BarPlan {
  readonly index: number;
  readonly size: number;
  readonly hasMemory: boolean;
  readonly rooms: readonly RoomPlan[];
}

export function planBars(bars: readonly BarDeclaration[], msixVectors: number): BarPlan[] {
  return bars.map((bar) => ({
    index: bar.index,
    size: bar.size,
    hasMemory: bar.parts.some(({ kind }) => kind === 'ram'),
    rooms: planRooms(bar, msixVectors),
  }));
}

interface OpenBar {
  readonly plan: BarPlan;
  /** As the plan's. */
  readonly rooms: readonly Room[];
}

export class BarSpace implements RoomSpace {
  readonly traps: TrapHandlers;
  readonly blocks = new Map<RegisterTable, OpenBlock>();
  /** By BAR index. */
  readonly #bars: OpenBar[] = [];
  /** By BAR index. */
  readonly #files: number[] = [];

  /** `name` is the memory's, for whoever looks at the process from outside. */
  constructor(name: string, bars: readonly BarPlan[], traps: TrapHandlers) {
    this.traps = traps;
    try {
      for (const plan of bars) {
        this.#open(name, plan);
      }
    } catch (error) {
      this.close();
      throw error;
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
    const open = this.blocks.get(table);
    if (open === undefined) {
      throw new RangeError(
        `block was not given a table that registers(…) of a BAR has: ${Object.keys(table).join(', ')}`,
      );
    }
    open.events = events as unknown as BlockEvents<RegisterTable>;
    return open.block as unknown as RegisterBlock<T>;
  }

  /** Registers get their reset values, MSI-X vectors are masked; memory pages keep what they hold. */
  reset(): void {
    for (const bar of this.#bars) {
      for (const room of bar?.rooms ?? []) {
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

  #open(name: string, plan: BarPlan): void {
    const { index, size } = plan;
    if (plan.hasMemory) {
      this.#files[index] = createMemfd(`${name}-bar${index}`, size);
    }
    this.#bars[index] = { plan, rooms: plan.rooms.map((room) => room.open(this)) };
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
    const open = this.#bars[bar];
    for (const [index, room] of open?.plan.rooms.entries() ?? []) {
      if (room.end > at && room.start < end) {
        upTo(undefined, room.start);
        upTo(open!.rooms[index], Math.min(end, room.end));
      }
    }
    upTo(undefined, end);
    return pieces;
  }
}
