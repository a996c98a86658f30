// Where a VF slot's BARs go in QEMU, as the fewest writes to config space that get them there. Pure: it remembers what
// each slot's registers hold and gives lists of writes; qemu-guest.ts has them carried out.

import { CommandBit, Header } from './pci-registers.ts';

/** A write to config space, of the function at `routingId` (bus, device, function); `width` in bytes. */
export interface ConfigWrite {
  readonly routingId: number;
  readonly register: number;
  readonly width: 2 | 4;
  readonly value: number;
}

/** One BAR of a VF: `address` on the guest's bus, 0 where the guest has given it none. */
export interface BarPlacement {
  readonly index: number;
  readonly is64Bit: boolean;
  /** In bytes. */
  readonly size: bigint;
  readonly address: bigint;
}

const LOW_HALF = 0xffff_ffffn;

/** What is known of a slot's BAR registers; those not in `values` hold 0 after a reset, or anything. */
interface Knowledge {
  readonly values: ReadonlyMap<number, number>;
  readonly othersAreZero: boolean;
}

/** Where QEMU shows a slot's memory, and since when: counts up with each move of any slot. */
interface Place {
  readonly since: number;
  readonly bars: readonly BarPlacement[];
}

/** Of a slot whose writes were begun and not finished. */
const UNCERTAIN: Knowledge = { values: new Map(), othersAreZero: false };

/** The writes that bring one slot to a state, and what to call when all of them were done, or some of them failed. */
export interface PlacementPlan {
  readonly writes: readonly ConfigWrite[];
  carriedOut(): void;
  failed(): void;
}

/** Remembers the placement of the slots of one QEMU, by routing ID. */
export class PlacementMemory {
  readonly #slots = new Map<number, Knowledge>();
  /** Slots that were placed and whose Command the guest cannot have written since: it has not run. */
  readonly #answering = new Set<number>();
  readonly #places = new Map<number, Place>();
  #moves = 0;
  #othersAreZero: boolean;

  /** `isFresh`: the machine has not run yet, so every BAR holds 0. */
  constructor(isFresh: boolean) {
    this.#othersAreZero = isFresh;
  }

  /** The whole machine was reset: every BAR holds 0. */
  machineReset(): void {
    this.forgetAll(true);
  }

  /** This slot was reset: its BARs hold 0, unless writes to it were begun since. */
  slotReset(routingId: number): void {
    this.#answering.delete(routingId);
    this.#places.delete(routingId);
    if (this.#slots.get(routingId) === UNCERTAIN) {
      return;
    }
    this.#slots.set(routingId, { values: new Map(), othersAreZero: true });
  }

  /** The guest's drivers own the Command registers again. */
  guestRan(): void {
    this.#answering.clear();
  }

  /** Another QEMU may sit behind the monitor now. */
  forgetAll(isFresh: boolean): void {
    this.#slots.clear();
    this.#answering.clear();
    this.#places.clear();
    this.#othersAreZero = isFresh;
  }

  /**
   * Puts every BAR where it belongs, then lets the slot answer there. What holds the right value is left out. `command`: the
   * slot's Command, by somebody who sees every write to it; what of it is not the placement's stays as the guest has it.
   */
  place(routingId: number, bars: readonly BarPlacement[], command = 0): PlacementPlan {
    const known = this.#knowledge(routingId);
    const values = new Map(known.values);
    const writes: ConfigWrite[] = [];
    const staying: BarPlacement[] = [];
    for (const bar of bars) {
      let isMoving = false;
      for (const [register, value] of barRegisters(bar)) {
        const current = known.values.get(register) ?? (known.othersAreZero ? 0 : undefined);
        values.set(register, value);
        if (current === value) {
          continue;
        }
        writes.push({ routingId, register, width: 4, value });
        // What is not known may be where it belongs already.
        isMoving ||= current !== undefined;
      }
      if (!isMoving && bar.address !== 0n) {
        staying.push(bar);
      }
    }
    const isCovered = this.#isCovered(routingId, staying);
    if (isCovered) {
      writes.unshift(commandWrite(routingId, command & ~CommandBit.memorySpaceEnable));
    }
    const isMoved = writes.length > 0;
    // Once the guest has run, its driver may have written Command: what it holds is known only to who sees that.
    if (isCovered || !(hasMemory(command) || this.#answering.has(routingId))) {
      writes.push(commandWrite(routingId, command | CommandBit.memorySpaceEnable));
    }
    return {
      writes,
      carriedOut: () => {
        this.#slots.set(routingId, { ...known, values });
        this.#answering.add(routingId);
        if (isMoved) {
          this.#places.set(routingId, { since: ++this.#moves, bars });
        }
      },
      failed: () => {
        this.#slots.set(routingId, UNCERTAIN);
        this.#answering.delete(routingId);
        this.#places.delete(routingId);
      },
    };
  }

  /**
   * Whether a slot that was placed later may lie over `bars`, which have an address and stay there. QEMU shows what was
   * mapped last, and a slot keeps its place when its VF goes: so the guest may have put another PF's VFs here for a while.
   * Mapped anew, a BAR is on top. (Slots of one PF cannot cover each other so: an enable that moves one moves all those
   * below it.)
   */
  #isCovered(routingId: number, bars: readonly BarPlacement[]): boolean {
    if (bars.length === 0) {
      return false;
    }
    const own = this.#places.get(routingId);
    // Where this one or another lies is not known: another glue placed it, or its writes were not finished.
    if (own === undefined || [...this.#slots.values()].includes(UNCERTAIN)) {
      return true;
    }
    return [...this.#places].some(
      ([other, { since, bars: others }]) =>
        other !== routingId &&
        since > own.since &&
        others.some((a) => a.address !== 0n && bars.some((b) => overlap(a, b))),
    );
  }

  #knowledge(routingId: number): Knowledge {
    return this.#slots.get(routingId) ?? { values: new Map(), othersAreZero: this.#othersAreZero };
  }
}

/** Whether a Command has Memory Space Enable. */
export function hasMemory(command = 0): boolean {
  return (command & CommandBit.memorySpaceEnable) !== 0;
}

function commandWrite(routingId: number, value: number): ConfigWrite {
  return { routingId, register: Header.command, width: 2, value };
}

/** Whether two BARs that the guest has placed share an address. */
function overlap(a: BarPlacement, b: BarPlacement): boolean {
  return a.address < b.address + b.size && b.address < a.address + a.size;
}

/** A BAR's registers and the address bits that each holds. */
function barRegisters(bar: BarPlacement): [register: number, value: number][] {
  const register = Header.bar0 + 4 * bar.index;
  const low: [number, number] = [register, Number(bar.address & LOW_HALF)];
  return bar.is64Bit ? [low, [register + 4, Number(bar.address >> 32n)]] : [low];
}
