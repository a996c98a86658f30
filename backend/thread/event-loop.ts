// The device thread's loop: waits for fds and timers, and calls back. No libuv in it: one wait, then plain calls.
// After something has happened it looks again without sleeping for a while (the spin), because a guest that touched
// a register once mostly touches the next one soon, and waking a sleeping thread costs more than the answer.
// A callback that throws is told to `onFault`, and the loop goes on: it serves others as well.

import type { Clock, Timer } from '../../protocol/clock.ts';
import { PollSet } from '../../protocol/unix/poll-set.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { TimerQueue } from './timer-queue.ts';

export interface Watcher {
  /** `hangup`: the peer is gone, so that what is there to read is all there will ever be. */
  readable(hangup: boolean): void;
  writable?(): void;
}

interface Ready {
  readonly fd: number;
  readonly watcher: Watcher | undefined;
  readonly readable: boolean;
  readonly writable: boolean;
}

const NOTHING_SOON: readonly (() => void)[] = [];

export class EventLoop implements Clock {
  readonly #spinMilliseconds: number;
  readonly #poll = new PollSet();
  readonly #watchers = new Map<number, Watcher>();
  readonly #others: Ready[] = [];
  readonly #timers = new TimerQueue();
  readonly #onFault: (error: unknown) => void;
  readonly #time: Pick<Clock, 'now'>;
  #soon: (() => void)[] = [];
  #running = false;
  #turnStart: number | undefined;

  /** Called when the loop has looked, before anything that is ready is served. */
  turnBegan: (() => void) | undefined;
  /** Called when everything that was ready has been served, before the loop looks again. */
  turnEnded: (() => void) | undefined;

  /**
   * `spinMicroseconds` 0: never spin, as where there is one CPU only. `onFault` gets what a callback throws. `time` tells the
   * milliseconds, where it is not the machine's.
   */
  constructor(
    spinMicroseconds: number,
    onFault: (error: unknown) => void = rethrow,
    time: Pick<Clock, 'now'> = processClock,
  ) {
    this.#spinMilliseconds = spinMicroseconds / 1000;
    this.#onFault = onFault;
    this.#time = time;
  }

  watch(fd: number, watcher: Watcher): void {
    this.#watchers.set(fd, watcher);
    this.#poll.set(fd, { readable: true });
  }

  /** Changes what is awaited of a watched fd. */
  await(fd: number, interest: { readable: boolean; writable: boolean }): void {
    if (this.#watchers.has(fd)) {
      this.#poll.set(fd, interest);
    }
  }

  unwatch(fd: number): void {
    this.#watchers.delete(fd);
    this.#poll.remove(fd);
  }

  now(): number {
    return this.#time.now();
  }

  /** When this turn began; who asks first in a turn begins it, so that a turn nobody asks about looks at no clock. */
  turnStart(): number {
    this.#turnStart ??= this.now();
    return this.#turnStart;
  }

  after(milliseconds: number, callback: () => void): Timer {
    return this.#timers.add(this.now() + milliseconds, callback);
  }

  /** Calls back once, in the next turn: behind all fds that are ready by then. */
  soon(callback: () => void): void {
    this.#soon.push(callback);
  }

  /** Runs until `stop`. */
  run(): void {
    this.#running = true;
    let lastEvent = 0;
    while (this.#running) {
      const waiting = this.#takeSoon();
      let count = this.#poll.wait(0);
      if (count === 0 && waiting.length === 0) {
        const now = this.#time.now();
        if (now - lastEvent < this.#spinMilliseconds && this.#timers.untilNext(now) !== 0) {
          continue;
        }
        count = this.#poll.wait(this.#untilNextTimer(now));
      }
      this.#turnStart = undefined;
      this.turnBegan?.();
      if (count > 0) {
        this.#dispatch();
        lastEvent = this.#time.now();
      }
      if (this.#timers.size > 0) {
        this.#fire();
      }
      for (const callback of waiting) {
        this.#call(callback);
      }
      if (this.turnEnded !== undefined) {
        this.#call(this.turnEnded);
      }
    }
  }

  stop(): void {
    this.#running = false;
  }

  /** It does not run any more, and never will. */
  close(): void {
    this.#poll.close();
  }

  /** Those of the turn that begins: what it adds itself is for the next one. */
  #takeSoon(): readonly (() => void)[] {
    if (this.#soon.length === 0) {
      return NOTHING_SOON;
    }
    const waiting = this.#soon;
    this.#soon = [];
    return waiting;
  }

  /** Hang-ups first: a client that left must have left before the one that comes after it is answered. */
  #dispatch(): void {
    const others = this.#others;
    for (const { fd, readable, writable, hangup } of this.#poll.ready()) {
      if (hangup) {
        this.#tellHangup(this.#watchers.get(fd));
      } else {
        others.push({ fd, watcher: this.#watchers.get(fd), readable, writable });
      }
    }
    for (const { fd, watcher, readable, writable } of others) {
      if (watcher === undefined || this.#watchers.get(fd) !== watcher) {
        continue;
      }
      try {
        if (writable) {
          watcher.writable?.();
        }
        if (readable && this.#watchers.get(fd) === watcher) {
          watcher.readable(false);
        }
      } catch (error) {
        this.#onFault(error);
      }
    }
    others.length = 0;
  }

  #tellHangup(watcher: Watcher | undefined): void {
    try {
      watcher?.readable(true);
    } catch (error) {
      this.#onFault(error);
    }
  }

  #fire(): void {
    try {
      this.#timers.fire(this.#time.now());
    } catch (error) {
      this.#onFault(error);
    }
  }

  #call(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      this.#onFault(error);
    }
  }

  #untilNextTimer(now: number): number {
    const next = this.#timers.untilNext(now);
    return next === undefined ? -1 : Math.ceil(next);
  }
}

function rethrow(error: unknown): never {
  throw error;
}
