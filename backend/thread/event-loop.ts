// The device thread's loop: waits for fds and timers, and calls back. No libuv in it: one poll, then plain calls.
// After something has happened it looks again without sleeping for a while (the spin), because a guest that touched
// a register once mostly touches the next one soon, and waking a sleeping thread costs more than the answer.

import type { Clock, Timer } from '../../protocol/clock.ts';
import { PollSet } from '../../protocol/unix/poll-set.ts';
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

export class EventLoop implements Clock {
  readonly #spinMilliseconds: number;
  readonly #poll = new PollSet();
  readonly #watchers = new Map<number, Watcher>();
  readonly #others: Ready[] = [];
  readonly #timers = new TimerQueue();
  #running = false;

  /** Called when everything that was ready has been served, before the loop looks again. */
  turnEnded: (() => void) | undefined;

  /** `spinMicroseconds` 0: never spin, as where there is one CPU only. */
  constructor(spinMicroseconds: number) {
    this.#spinMilliseconds = spinMicroseconds / 1000;
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
    return performance.now();
  }

  after(milliseconds: number, callback: () => void): Timer {
    return this.#timers.add(this.now() + milliseconds, callback);
  }

  /** Runs until `stop`. */
  run(): void {
    this.#running = true;
    let lastEvent = 0;
    while (this.#running) {
      let count = this.#poll.wait(0);
      if (count === 0) {
        const now = performance.now();
        if (now - lastEvent < this.#spinMilliseconds) {
          continue;
        }
        count = this.#poll.wait(this.#untilNextTimer(now));
      }
      if (count > 0) {
        this.#dispatch();
        lastEvent = performance.now();
      }
      if (this.#timers.size > 0) {
        this.#timers.fire(performance.now());
      }
      this.turnEnded?.();
    }
  }

  stop(): void {
    this.#running = false;
  }

  /** Hang-ups first: a client that left must have left before the one that comes after it is answered. */
  #dispatch(): void {
    const others = this.#others;
    for (const { fd, readable, writable, hangup } of this.#poll.ready()) {
      if (hangup) {
        this.#watchers.get(fd)?.readable(true);
      } else {
        others.push({ fd, watcher: this.#watchers.get(fd), readable, writable });
      }
    }
    for (const { fd, watcher, readable, writable } of others) {
      if (watcher === undefined || this.#watchers.get(fd) !== watcher) {
        continue;
      }
      if (writable) {
        watcher.writable?.();
      }
      if (readable && this.#watchers.get(fd) === watcher) {
        watcher.readable(false);
      }
    }
    others.length = 0;
  }

  #untilNextTimer(now: number): number {
    const next = this.#timers.untilNext(now);
    return next === undefined ? -1 : Math.ceil(next);
  }
}
