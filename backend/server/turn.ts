// What is done for one client in one turn of the loop, whatever it asks for, before the others have theirs. All clients share
// the time of a turn; when it is over, each has one message more answered.

const MOST_MESSAGES = 32;
const MOST_MILLISECONDS = 0.25;

/** What a turn's length is measured by; milliseconds. */
export interface TurnClock {
  now(): number;
  /** When this turn of the loop began, as far as anybody asked. */
  turnStart(): number;
}

export class Turn {
  readonly #clock: TurnClock;
  #messages = 0;

  constructor(clock: TurnClock) {
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
    const start = this.#clock.turnStart();
    return this.#messages > MOST_MESSAGES || this.#clock.now() - start > MOST_MILLISECONDS;
  }
}
