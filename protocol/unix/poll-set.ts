// The fds that a thread without an event loop waits on: poll(2) over one fixed array, nothing allocated while waiting.
// Called by the device thread's loop.

import { POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT } from './kernel-numbers.ts';
import { ErrnoNumber, pinnedMemory, poll } from './libc.ts';
import { check } from './syscall-error.ts';

/** Bytes of struct pollfd {int fd; short events; short revents}, and where its parts are. */
export const pollfd = { size: 8, fd: 0, events: 4, revents: 6 };

/** How long a thread gives a kernel that has no memory for its poll. */
const OUT_OF_MEMORY_PAUSE_MILLISECONDS = 10;
const sleeper = new Int32Array(new SharedArrayBuffer(4));

/** What is awaited of an fd; a hang-up or an error is always reported. */
export interface Interest {
  readable?: boolean;
  writable?: boolean;
}

/** What an fd is ready for. `hangup`: the peer is gone, an error waits, or the fd is not open. */
export interface Ready {
  fd: number;
  readable: boolean;
  writable: boolean;
  hangup: boolean;
}

/** A set of fds to wait on. It does not own them: remove one before closing it. */
export class PollSet {
  #memory = pinnedMemory(64 * pollfd.size);
  #view = new DataView(this.#memory.bytes.buffer);
  readonly #indexes = new Map<number, number>();
  readonly #ready: ReadyEntries = new ReadyEntries(this);
  readonly #poll: typeof poll;

  /** `call` is poll(2), or a test's. */
  constructor(call: typeof poll = poll) {
    this.#poll = call;
  }

  /** How many fds are in the set. */
  get size(): number {
    return this.#indexes.size;
  }

  /** Adds `fd`, or changes what is awaited of it. */
  set(fd: number, interest: Interest): void {
    let index = this.#indexes.get(fd);
    if (index === undefined) {
      index = this.#indexes.size;
      if ((index + 1) * pollfd.size > this.#memory.bytes.length) {
        this.#grow();
      }
      this.#indexes.set(fd, index);
      this.#view.setInt32(index * pollfd.size + pollfd.fd, fd, true);
      this.#view.setInt16(index * pollfd.size + pollfd.revents, 0, true);
    }
    const events = (interest.readable ? POLLIN : 0) | (interest.writable ? POLLOUT : 0);
    this.#view.setInt16(index * pollfd.size + pollfd.events, events, true);
  }

  /** Takes `fd` out, also while ready() is walked; one that is not in the set is ignored. */
  remove(fd: number): void {
    const index = this.#indexes.get(fd);
    if (index === undefined) {
      return;
    }
    const last = this.#indexes.size - 1;
    this.#indexes.delete(fd);
    if (index === last) {
      return;
    }
    this.#memory.bytes.copyWithin(
      index * pollfd.size,
      last * pollfd.size,
      (last + 1) * pollfd.size,
    );
    this.#indexes.set(this.#view.getInt32(index * pollfd.size + pollfd.fd, true), index);
  }

  /**
   * Waits until an fd is ready; -1 = without limit. Returns how many are: 0 after the time, when a signal came, or when
   * the kernel had no memory for it.
   */
  wait(timeoutMilliseconds: number): number {
    const count = this.#poll(this.#memory.address, this.#indexes.size, timeoutMilliseconds);
    if (count === -ErrnoNumber.EINTR || count === -ErrnoNumber.ENOMEM) {
      this.#forget();
      if (count === -ErrnoNumber.ENOMEM) {
        Atomics.wait(sleeper, 0, 0, OUT_OF_MEMORY_PAUSE_MILLISECONDS);
      }
      return 0;
    }
    return check('poll', count);
  }

  /**
   * The fds that the last wait() found ready, each once. The set may change while it is walked. The entry is the same
   * object each time, and one walk at a time is possible.
   */
  ready(): Iterable<Ready> {
    this.#ready.start();
    return this.#ready;
  }

  /** For ready(): the entry at `index`, forgotten as it is told, or false if there is none. */
  takeReady(index: number, into: Ready): boolean {
    if (index >= this.#indexes.size) {
      return false;
    }
    const at = index * pollfd.size;
    const events = this.#view.getInt16(at + pollfd.revents, true);
    if (events === 0) {
      return false;
    }
    this.#view.setInt16(at + pollfd.revents, 0, true);
    into.fd = this.#view.getInt32(at + pollfd.fd, true);
    into.readable = (events & POLLIN) !== 0;
    into.writable = (events & POLLOUT) !== 0;
    into.hangup = (events & (POLLHUP | POLLERR | POLLNVAL)) !== 0;
    return true;
  }

  // A poll that failed leaves the answers of the one before.
  #forget(): void {
    for (let index = 0; index < this.#indexes.size; index++) {
      this.#view.setInt16(index * pollfd.size + pollfd.revents, 0, true);
    }
  }

  #grow(): void {
    const larger = pinnedMemory(2 * this.#memory.bytes.length);
    larger.bytes.set(this.#memory.bytes);
    this.#memory = larger;
    this.#view = new DataView(larger.bytes.buffer);
  }
}

// Walks from the end: removing moves the last entry, which was seen already, into the gap, and new ones come behind.
class ReadyEntries implements Iterable<Ready>, Iterator<Ready> {
  readonly #set: PollSet;
  readonly #entry: Ready = { fd: -1, readable: false, writable: false, hangup: false };
  readonly #result: { done: boolean; value: Ready } = { done: false, value: this.#entry };
  #next = 0;

  constructor(set: PollSet) {
    this.#set = set;
  }

  start(): void {
    this.#next = this.#set.size;
  }

  [Symbol.iterator](): Iterator<Ready> {
    return this;
  }

  next(): IteratorResult<Ready> {
    this.#result.done = true;
    while (this.#next > 0) {
      this.#next--;
      if (this.#set.takeReady(this.#next, this.#entry)) {
        this.#result.done = false;
        break;
      }
    }
    return this.#result as IteratorResult<Ready>;
  }
}
