// Time that passes only when a test says so.

import type { Clock, Timer } from '../../protocol/clock.ts';

export class ManualClock implements Clock {
  #now = 0;
  #timers: { due: number; callback: () => void }[] = [];

  /** How many calls are still to come. */
  get pending(): number {
    return this.#timers.length;
  }

  now(): number {
    return this.#now;
  }

  /** A turn takes no time. */
  turnStart(): number {
    return this.#now;
  }

  after(milliseconds: number, callback: () => void): Timer {
    const timer = { due: this.#now + milliseconds, callback };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  /** Lets time pass in steps, with turns of the event loop between them, for what asks again and again. */
  async pass(milliseconds: number, stepMilliseconds: number): Promise<void> {
    for (let passed = 0; passed < milliseconds; passed += stepMilliseconds) {
      await new Promise((resolve) => setImmediate(resolve));
      this.elapse(stepMilliseconds);
    }
  }

  /** Lets time pass; what falls due is called in order. */
  elapse(milliseconds: number): void {
    const end = this.#now + milliseconds;
    for (;;) {
      const [next] = this.#timers.filter(({ due }) => due <= end).sort((a, b) => a.due - b.due);
      if (next === undefined) {
        break;
      }
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.#now = next.due;
      next.callback();
    }
    this.#now = end;
  }
}
