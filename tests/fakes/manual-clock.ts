// Time that passes only when a test says so.

export class ManualClock {
  #now = 0;
  #timers: { due: number; callback: () => void }[] = [];

  after(milliseconds: number, callback: () => void): void {
    this.#timers.push({ due: this.#now + milliseconds, callback });
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
