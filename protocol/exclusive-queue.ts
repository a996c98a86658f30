// One thing at a time, in the order asked for: what keeps those who share a device or a guest out of each other's way.

export class ExclusiveQueue {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `job` when all earlier ones have ended, however they ended; gives its result. */
  run<T>(job: () => Promise<T>): Promise<T> {
    const result = this.#last.then(job, job);
    this.#last = result.catch(() => {});
    return result;
  }

  /** Resolves when all jobs so far have ended. */
  async idle(): Promise<void> {
    await this.#last;
  }
}
