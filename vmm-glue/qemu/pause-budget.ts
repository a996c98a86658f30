// How much is done in one pause of the guest, in the background of what it does: as many steps as fit into a time and into a
// number of commands. A step that would not fit waits for the next pause, and so does every step but one while nobody knows
// how long letting the guest go takes. Pure: whoever uses it says what time it is, and keeps it for what it has learnt.

/** What a pause may take. */
export interface PauseLimits {
  /** From asking for the stop until the guest runs on. */
  readonly milliseconds: number;
  /** To QEMU, for what is done; stop and cont are not counted. */
  readonly commands: number;
}

export class PauseBudget {
  readonly #limits: PauseLimits;
  #began = 0;
  #steps = 0;
  #commands = 0;
  /** What a step takes, and what letting the guest go takes, by those of before: a longer one counts at once, a shorter one half. */
  #stepMilliseconds: number | undefined;
  #endMilliseconds: number | undefined;

  constructor(limits: PauseLimits) {
    this.#limits = limits;
  }

  /** The stop is asked for at `now`, in milliseconds as all times here. */
  begin(now: number): void {
    this.#began = now;
    this.#steps = 0;
    this.#commands = 0;
  }

  /** Whether a step of so many commands may be begun at `now`. The first may: nothing is done in no step at all. */
  hasRoom(commands: number, now: number): boolean {
    if (this.#steps === 0) {
      return true;
    }
    const [step, end] = [this.#stepMilliseconds, this.#endMilliseconds];
    if (step === undefined || end === undefined) {
      return false;
    }
    const ends = now - this.#began + step + end;
    return this.#commands + commands <= this.#limits.commands && ends <= this.#limits.milliseconds;
  }

  /** A step was done. */
  did(commands: number, milliseconds: number): void {
    this.#steps++;
    this.#commands += commands;
    this.#stepMilliseconds = expected(this.#stepMilliseconds, milliseconds);
  }

  /** The guest was let go. */
  ended(milliseconds: number): void {
    this.#endMilliseconds = expected(this.#endMilliseconds, milliseconds);
  }
}

function expected(before: number | undefined, now: number): number {
  return before === undefined ? now : Math.max(now, (before + now) / 2);
}
