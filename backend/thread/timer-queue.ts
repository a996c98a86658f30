// The timers of the device thread's loop, in the order in which they fall due. The loop asks on every turn: nothing is
// scanned for that, and a cancelled timer is gone at once.

import type { Timer } from '../../protocol/clock.ts';

interface Entry {
  readonly due: number;
  readonly callback: () => void;
}

export class TimerQueue {
  /** The next one last. */
  readonly #entries: Entry[] = [];

  get size(): number {
    return this.#entries.length;
  }

  /** Calls back at the first `fire` that is not before `due`; of equal ones, the first set first. */
  add(due: number, callback: () => void): Timer {
    const entry = { due, callback };
    this.#entries.splice(this.#placeOf(due), 0, entry);
    return {
      cancel: () => {
        const index = this.#entries.indexOf(entry, this.#placeOf(due));
        if (index >= 0) {
          this.#entries.splice(index, 1);
        }
      },
    };
  }

  /** Milliseconds until the next one, 0 if it is due; undefined where there is none. */
  untilNext(now: number): number | undefined {
    const next = this.#entries.at(-1);
    return next === undefined ? undefined : Math.max(0, next.due - now);
  }

  /** Calls all that are due. */
  fire(now: number): void {
    for (let next = this.#entries.at(-1); next !== undefined && next.due <= now; ) {
      this.#entries.pop();
      next.callback();
      next = this.#entries.at(-1);
    }
  }

  /** Where a new entry goes: behind all later ones, before those that fall due at the same moment. */
  #placeOf(due: number): number {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#entries[middle]!.due > due) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
}
