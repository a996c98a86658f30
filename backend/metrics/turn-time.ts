// How long turns of the device thread take, by the CPU time that it has had: what others do on the machine does not count.

/** Milliseconds of CPU time that the thread has had. */
export type CpuClock = () => number;

export class TurnTime {
  readonly #cpu: CpuClock;
  #began = 0;
  #longest = 0;
  #isAsked = false;

  constructor(cpu: CpuClock) {
    this.#cpu = cpu;
  }

  began(): void {
    this.#began = this.#cpu();
  }

  ended(): void {
    if (this.#isAsked) {
      this.#isAsked = false;
    } else {
      this.#longest = Math.max(this.#longest, this.#cpu() - this.#began);
    }
  }

  /** Seconds, of the longest turn since the one in which this was asked for the last time: to answer takes time itself. */
  takeLongest(): number {
    const seconds = this.#longest / 1000;
    this.#longest = 0;
    this.#isAsked = true;
    return seconds;
  }
}
