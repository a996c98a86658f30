// The VMM's end of a device interrupt: an eventfd that the server signals, and a promise for the next signal.
// Give its fd to VfioUserClient.bindInterrupts.

import type { Clock, Timer } from '../../protocol/clock.ts';
import { createEventFd, drainEventFd } from '../../protocol/unix/eventfd.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { watchFd } from '../../protocol/unix/watch-fd.ts';

interface Waiter {
  readonly resolve: (signals: bigint) => void;
  readonly reject: (error: Error) => void;
  readonly timer: Timer | undefined;
}

export class Interrupt implements Disposable {
  /** The eventfd, open until `close()`. */
  readonly fd: number;
  /** Signals seen since creation. */
  total = 0n;
  /** Signals that no `next()` has taken yet. */
  #unclaimed = 0n;
  readonly #clock: Clock;
  readonly #waiters: Waiter[] = [];
  readonly #unwatch: () => void;
  #closed = false;

  constructor(clock: Clock = processClock) {
    this.#clock = clock;
    this.fd = createEventFd();
    this.#unwatch = watchFd(this.fd, () => this.#collect());
  }

  /**
   * The number of signals since the last `next()`, as soon as there is one.
   * Rejects after `timeoutMilliseconds` (0 waits without end) and when the interrupt is closed.
   */
  next(timeoutMilliseconds = 5000): Promise<bigint> {
    this.#collect();
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        throw new Error('interrupt: it is closed');
      }
      if (this.#unclaimed > 0n) {
        resolve(this.#claim());
        return;
      }
      const waiter: Waiter = {
        resolve,
        reject,
        timer:
          timeoutMilliseconds === 0
            ? undefined
            : this.#clock.after(timeoutMilliseconds, () => {
                this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
                reject(new Error(`interrupt: no signal within ${timeoutMilliseconds} ms`));
              }),
      };
      this.#waiters.push(waiter);
    });
  }

  /** The number of signals since the last `next()` or `drain()`, without waiting. */
  drain(): bigint {
    this.#collect();
    return this.#claim();
  }

  /** Closes the eventfd; waiters reject. */
  close(): void {
    if (this.#closed) {
      return;
    }
    this.#closed = true;
    this.#unwatch();
    closeFd(this.fd);
    for (const waiter of this.#waiters.splice(0)) {
      waiter.timer?.cancel();
      waiter.reject(new Error('interrupt: it was closed while somebody waited'));
    }
  }

  /** `using` closes it at the end of its block. */
  [Symbol.dispose](): void {
    this.close();
  }

  #claim(): bigint {
    const signals = this.#unclaimed;
    this.#unclaimed = 0n;
    return signals;
  }

  #collect(): void {
    if (this.#closed) {
      return;
    }
    const signals = drainEventFd(this.fd);
    this.total += signals;
    this.#unclaimed += signals;
    if (this.#unclaimed > 0n) {
      const waiter = this.#waiters.shift();
      if (waiter !== undefined) {
        waiter.timer?.cancel();
        waiter.resolve(this.#claim());
      }
    }
  }
}
