// The submission queues of a controller that may have entries, those whose doorbell rang, in turns. A list, and no Set whose members come and
// go: each table that V8's Set has outgrown leads to the next, so that one which got old would have all of them grow old.

import type { SubmissionQueue } from './queues.ts';

export class ActiveQueues {
  readonly #queues: SubmissionQueue[] = [];

  add(queue: SubmissionQueue): void {
    if (!this.#queues.includes(queue)) {
      this.#queues.push(queue);
    }
  }

  delete(queue: SubmissionQueue): void {
    this.keep((each) => each !== queue);
  }

  /** The first that can be served, which goes behind all others. */
  next(canBeServed: (queue: SubmissionQueue) => boolean): SubmissionQueue | undefined {
    const at = this.#queues.findIndex(canBeServed);
    const queue = this.#queues[at];
    if (queue !== undefined) {
      this.#queues.copyWithin(at, at + 1);
      this.#queues[this.#queues.length - 1] = queue;
    }
    return queue;
  }

  some(isMeant: (queue: SubmissionQueue) => boolean): boolean {
    return this.#queues.some(isMeant);
  }

  /** Asks of each, in turn, whether it stays. */
  keep(stays: (queue: SubmissionQueue) => boolean): void {
    let kept = 0;
    for (const queue of this.#queues) {
      if (stays(queue)) {
        this.#queues[kept++] = queue;
      }
    }
    this.#queues.length = kept;
  }
}
