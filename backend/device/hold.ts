// What keeps an answer back until something is over.

import { countdown } from './countdown.ts';

/** Keeps one answer back. */
export class Hold {
  #isOver = false;
  #waiting: (() => void) | undefined;

  /** Calls back when the hold is over. */
  wait(callback: () => void): void {
    if (this.#isOver) {
      callback();
    } else {
      this.#waiting = callback;
    }
  }

  /** Ends the hold; more than once does no harm. */
  release(): void {
    this.#isOver = true;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.();
  }
}

/** Calls back when all of them are over: at once where there is none. */
export function whenOver(holds: readonly Hold[], callback: () => void): void {
  const oneIsOver = countdown(holds.length, callback);
  for (const hold of holds) {
    hold.wait(oneIsOver);
  }
}

const NO_HOLDS: readonly Hold[] = [];

/** The holds of writes that are being carried out, until somebody takes them: mostly none. */
export class Holds {
  readonly #begun: Hold[] = [];

  begin(): Hold {
    const hold = new Hold();
    this.#begun.push(hold);
    return hold;
  }

  take(): readonly Hold[] {
    return this.#begun.length === 0 ? NO_HOLDS : this.#begun.splice(0);
  }
}
