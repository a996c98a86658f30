// How long turns of the device thread take, by the CPU time that it has had: what others do on the machine does not count.

/** Milliseconds of CPU time that the thread has had. */
export type CpuClock = () => number;

export class TurnTime {
  readonly #cpu: CpuClock;
  #began = 0;
  #longest = 0;

  constructor(cpu: CpuClock) {
    this.#cpu = cpu;
  }

  began(): void {
    this.#began = this.#cpu();
  }

  ended(): void {
    this.#longest = Math.max(this.#longest, this.#cpu() - this.#began);
  }

  /** Seconds, of the longest turn since the last time that this was asked for. */
  takeLongest(): number {
    const seconds = this.#longest / 1000;
    this.#longest = 0;
    return seconds;
  }
}
