import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createEventFd, drainEventFd, signalEventFd } from '../../../../protocol/unix/eventfd.ts';
import { socketPair } from '../../../../protocol/unix/fd-socket.ts';
import { F_GETFL, F_SETFL, O_NONBLOCK } from '../../../../protocol/unix/kernel-numbers.ts';
import { closeFd, ErrnoNumber, fcntl, read, write } from '../../../../protocol/unix/libc.ts';

const FULL = 2n ** 64n - 2n;

describe('eventfd', () => {
  let fd: number;
  beforeEach(() => {
    fd = createEventFd();
  });
  afterEach(() => closeFd(fd));

  function add(count: bigint): number {
    return write(fd, new Uint8Array(BigUint64Array.of(count).buffer), 8);
  }

  it('counts signals until it is drained', () => {
    expect(signalEventFd(fd)).toBe(true);
    expect(signalEventFd(fd)).toBe(true);
    expect(drainEventFd(fd)).toBe(2n);
    expect(drainEventFd(fd)).toBe(0n);
  });

  it('gives a 64-bit count', () => {
    add(FULL);
    expect(drainEventFd(fd)).toBe(FULL);
  });

  it('is non-blocking', () => {
    expect(read(fd, new Uint8Array(8), 8)).toBe(-ErrnoNumber.EAGAIN);
  });

  it('counts a full one as signalled', () => {
    add(FULL);
    expect(signalEventFd(fd)).toBe(true);
    expect(drainEventFd(fd)).toBe(FULL);
  });

  it('never waits on a full one that is blocking, as a peer may send it', () => {
    add(FULL);
    fcntl(fd, F_SETFL, 0);
    expect(signalEventFd(fd)).toBe(true);
    expect(drainEventFd(fd)).toBe(FULL);
  });

  it('never waits on an empty one that is blocking', () => {
    fcntl(fd, F_SETFL, 0);
    expect(drainEventFd(fd)).toBe(0n);
  });

  it('leaves the flags of a blocking one as they are', () => {
    fcntl(fd, F_SETFL, 0);
    signalEventFd(fd);
    expect(fcntl(fd, F_GETFL, 0) & O_NONBLOCK).toBe(0);
  });
});

describe('something that is not an eventfd', () => {
  it('is reported when it is closed', () => {
    expect(signalEventFd(9999)).toBe(false);
    expect(drainEventFd(9999)).toBe(0n);
  });

  it('is reported when nobody is at its other end', () => {
    const [a, b] = socketPair();
    closeFd(b);
    expect(signalEventFd(a)).toBe(false);
    closeFd(a);
  });
});
