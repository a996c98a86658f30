// What is done for one client in one turn of the loop, whatever it asks for, before the others have theirs.

import type { Clock } from '../../protocol/clock.ts';

const MOST_MESSAGES = 32;
const MOST_MILLISECONDS = 0.5;

export class Turn {
  readonly #clock: Pick<Clock, 'now'>;
  #messages = 0;
  #began = 0;

  constructor(clock: Pick<Clock, 'now'>) {
    this.#clock = clock;
  }

  begin(): void {
    this.#messages = 0;
  }

  /**
   * Asked before each message: whether it has to wait for the next turn. Looks at the clock only where there is more
   * than one message: a guest's next one waits for the answer.
   */
  isOver(): boolean {
    this.#messages++;
    if (this.#messages === 1) {
      return false;
    }
    const now = this.#clock.now();
    if (this.#messages === 2) {
      this.#began = now;
    }
    return this.#messages > MOST_MESSAGES || now - this.#began > MOST_MILLISECONDS;
  }
}
