// How long turns of the device thread take, by the CPU time that it has had: what others do on the machine does not count.

/** Milliseconds of CPU time that the thread has had. */
export type CpuClock = () => number;

/** A turn that was longer than all others for a while. `start` and `end` are nanoseconds, by CLOCK_MONOTONIC. */
export interface LongestTurn {
  readonly cpuMilliseconds: number;
  readonly start: bigint;
  readonly end: bigint;
}

const NONE: LongestTurn = { cpuMilliseconds: 0, start: 0n, end: 0n };

export class TurnTime {
  readonly #cpu: CpuClock;
  readonly #monotonic: () => bigint;
  #cpuAtStart = 0;
  #start = 0n;
  #longest = NONE;
  #isAsked = false;

  /** `monotonic`: nanoseconds, by CLOCK_MONOTONIC. */
  constructor(cpu: CpuClock, monotonic: () => bigint) {
    this.#cpu = cpu;
    this.#monotonic = monotonic;
  }

  began(): void {
    this.#start = this.#monotonic();
    this.#cpuAtStart = this.#cpu();
  }

  ended(): void {
    const cpuMilliseconds = this.#cpu() - this.#cpuAtStart;
    if (this.#isAsked) {
      this.#isAsked = false;
    } else if (cpuMilliseconds > this.#longest.cpuMilliseconds) {
      this.#longest = { cpuMilliseconds, start: this.#start, end: this.#monotonic() };
    }
  }

  /** Since the turn in which this was asked for the last time: to answer takes time itself. Zeros where there was none. */
  takeLongest(): LongestTurn {
    const longest = this.#longest;
    this.#longest = NONE;
    this.#isAsked = true;
    return longest;
  }
}
