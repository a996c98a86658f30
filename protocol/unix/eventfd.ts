// eventfds of our own: how threads wake each other. Nothing here ever waits.

import { POLLHUP, POLLIN, POLLNVAL, POLLOUT } from './kernel-numbers.ts';
import { ErrnoNumber, eventfd, pinnedMemory, poll, read, write } from './libc.ts';
import { check } from './syscall-error.ts';

/** Where the parts are of struct pollfd {int fd; short events; short revents}. */
const pollfd = { fd: 0, events: 4, revents: 6 };
const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

// The number 1 to write, the number read, and one pollfd.
const memory = pinnedMemory(24);
const view = new DataView(memory.bytes.buffer);
view.setBigUint64(0, 1n, true);
const one = memory.address;
const value = memory.address + 8n;
const pollAddress = memory.address + 16n;
const POLL_AT = 16;

/** A new eventfd with count 0, non-blocking and close-on-exec. */
export function createEventFd(): number {
  return check('eventfd', eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

/**
 * Adds 1. True if the eventfd is signalled now, which a full one is already; false if `fd` cannot be written.
 * Never waits, as long as nobody else fills it meanwhile: those of a peer are peer-eventfd.ts's.
 */
export function signalEventFd(fd: number): boolean {
  const events = pollOnce(fd, POLLOUT);
  if ((events & POLLOUT) === 0) {
    return (events & (POLLNVAL | POLLHUP)) === 0;
  }
  const result = write(fd, one, 8);
  return result === 8 || result === -ErrnoNumber.EAGAIN;
}

/** Takes the count and sets it to 0; 0n if it was 0 or the fd cannot be read. */
export function drainEventFd(fd: number): bigint {
  if ((pollOnce(fd, POLLIN) & POLLIN) === 0) {
    return 0n;
  }
  return read(fd, value, 8) === 8 ? view.getBigUint64(8, true) : 0n;
}

function pollOnce(fd: number, events: number): number {
  view.setInt32(POLL_AT + pollfd.fd, fd, true);
  view.setInt16(POLL_AT + pollfd.events, events, true);
  view.setInt16(POLL_AT + pollfd.revents, 0, true);
  const result = poll(pollAddress, 1, 0);
  if (result === -ErrnoNumber.EINTR) {
    return pollOnce(fd, events);
  }
  return view.getInt16(POLL_AT + pollfd.revents, true);
}
