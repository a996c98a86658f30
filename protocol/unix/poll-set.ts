// The fds that a thread without an event loop waits on: epoll(7), so that waiting for one of a thousand costs what it does for
// one of two; nothing allocated while waiting. Called by the device thread's loop.

import {
  EPOLL_CLOEXEC,
  EPOLL_CTL_ADD,
  EPOLL_CTL_DEL,
  EPOLL_CTL_MOD,
  POLLERR,
  POLLHUP,
  POLLIN,
  POLLOUT,
} from './kernel-numbers.ts';
import {
  closeFd,
  ErrnoNumber,
  epollControl,
  epollCreate,
  epollWait,
  pinnedMemory,
} from './libc.ts';
import { check } from './syscall-error.ts';

/** Bytes of struct epoll_event {uint32 events; uint64 data}, packed on one processor only; the data are the fd and its serial. */
const event =
  process.arch === 'x64'
    ? { size: 12, events: 0, fd: 4, serial: 8 }
    : { size: 16, events: 0, fd: 8, serial: 12 };
const FIRST_ROOM = 64;

/** What is awaited of an fd; a hang-up or an error is always reported. */
export interface Interest {
  readable?: boolean;
  writable?: boolean;
}

/** What an fd is ready for. `hangup`: the peer is gone, or an error waits. */
export interface Ready {
  fd: number;
  readable: boolean;
  writable: boolean;
  hangup: boolean;
}

interface Member {
  /** An fd that is removed and added again is another one. */
  readonly serial: number;
  events: number;
}

/** A set of fds to wait on. It does not own them: remove one before closing it. */
export class PollSet {
  #epoll = check('epoll_create1', epollCreate(EPOLL_CLOEXEC));
  /** Room for an event of each member, so that a hang-up is never told behind what came after it. */
  #memory = pinnedMemory(FIRST_ROOM * event.size);
  #view = new DataView(this.#memory.bytes.buffer);
  readonly #asked = pinnedMemory(event.size);
  readonly #askedView = new DataView(this.#asked.bytes.buffer);
  readonly #members = new Map<number, Member>();
  readonly #ready: ReadyEntries = new ReadyEntries(this);
  #serial = 0;

  /** How many fds are in the set. */
  get size(): number {
    return this.#members.size;
  }

  /** Adds `fd`, or changes what is awaited of it. @throws SyscallError for one that is not open, or is a file's */
  set(fd: number, interest: Interest): void {
    const events = (interest.readable ? POLLIN : 0) | (interest.writable ? POLLOUT : 0);
    const member = this.#members.get(fd);
    if (member === undefined) {
      const serial = ++this.#serial >>> 0;
      this.#control(EPOLL_CTL_ADD, fd, serial, events);
      this.#members.set(fd, { serial, events });
      if (this.#members.size * event.size > this.#memory.bytes.length) {
        this.#grow();
      }
    } else if (member.events !== events) {
      this.#control(EPOLL_CTL_MOD, fd, member.serial, events);
      member.events = events;
    }
  }

  /** Takes `fd` out, also while ready() is walked; one that is not in the set is ignored. */
  remove(fd: number): void {
    if (this.#members.delete(fd) && this.#epoll >= 0) {
      // One that was closed before is not in the kernel's set either.
      epollControl(this.#epoll, EPOLL_CTL_DEL, fd, this.#asked.address);
    }
  }

  /** Waits until an fd is ready; -1 = without limit. Returns how many are: 0 after the time, or when a signal came. */
  wait(timeoutMilliseconds: number): number {
    const room = this.#memory.bytes.length / event.size;
    const count = epollWait(this.#epoll, this.#memory.address, room, timeoutMilliseconds);
    this.#ready.found = count === -ErrnoNumber.EINTR ? 0 : check('epoll_wait', count);
    return this.#ready.found;
  }

  /**
   * The fds that the last wait() found ready, each once. The set may change while it is walked. The entry is the same
   * object each time, and one walk at a time is possible.
   */
  ready(): Iterable<Ready> {
    return this.#ready;
  }

  /** For ready(): the event at `index`, or false if that is of an fd which is not in the set any more. */
  takeReady(index: number, into: Ready): boolean {
    const at = index * event.size;
    const fd = this.#view.getInt32(at + event.fd, true);
    if (this.#members.get(fd)?.serial !== this.#view.getUint32(at + event.serial, true)) {
      return false;
    }
    const events = this.#view.getUint32(at + event.events, true);
    into.fd = fd;
    into.readable = (events & POLLIN) !== 0;
    into.writable = (events & POLLOUT) !== 0;
    into.hangup = (events & (POLLHUP | POLLERR)) !== 0;
    return true;
  }

  /** Nothing can be waited for any more. */
  close(): void {
    if (this.#epoll >= 0) {
      closeFd(this.#epoll);
      this.#epoll = -1;
    }
  }

  #control(operation: number, fd: number, serial: number, events: number): void {
    this.#askedView.setUint32(event.events, events, true);
    this.#askedView.setInt32(event.fd, fd, true);
    this.#askedView.setUint32(event.serial, serial, true);
    check('epoll_ctl', epollControl(this.#epoll, operation, fd, this.#asked.address), `fd ${fd}`);
  }

  #grow(): void {
    const larger = pinnedMemory(2 * this.#memory.bytes.length);
    larger.bytes.set(this.#memory.bytes);
    this.#memory = larger;
    this.#view = new DataView(larger.bytes.buffer);
  }
}

class ReadyEntries implements Iterable<Ready>, Iterator<Ready> {
  readonly #set: PollSet;
  readonly #entry: Ready = { fd: -1, readable: false, writable: false, hangup: false };
  readonly #result: { done: boolean; value: Ready } = { done: false, value: this.#entry };
  #found = 0;
  #next = 0;

  constructor(set: PollSet) {
    this.#set = set;
  }

  get found(): number {
    return this.#found;
  }

  /** How many events the last wait() has brought: none of them was told yet. */
  set found(count: number) {
    this.#found = count;
    this.#next = 0;
  }

  [Symbol.iterator](): Iterator<Ready> {
    return this;
  }

  next(): IteratorResult<Ready> {
    this.#result.done = true;
    while (this.#next < this.#found) {
      if (this.#set.takeReady(this.#next++, this.#entry)) {
        this.#result.done = false;
        break;
      }
    }
    return this.#result as IteratorResult<Ready>;
  }
}
