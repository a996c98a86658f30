import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createEventFd, drainEventFd } from '../../../../protocol/unix/eventfd.ts';
import { socketPair } from '../../../../protocol/unix/fd-socket.ts';
import { F_GETFL, F_SETFL, O_NONBLOCK } from '../../../../protocol/unix/kernel-numbers.ts';
import { closeFd, fcntl, write } from '../../../../protocol/unix/libc.ts';
import { signalPeerEventFd } from '../../../../protocol/unix/peer-eventfd.ts';

/** As much as can be written to one; one signal more is what only the kernel itself can add. */
const FULL = 2n ** 64n - 2n;

describe('an eventfd of a peer', () => {
  let fd: number;
  beforeEach(() => {
    fd = createEventFd();
    fcntl(fd, F_SETFL, 0);
  });
  afterEach(() => closeFd(fd));

  it('counts what it is signalled, however often', () => {
    for (let signal = 0; signal < 1000; signal++) {
      expect(signalPeerEventFd(fd)).toBe(true);
    }
    expect(drainEventFd(fd)).toBe(1000n);
  });

  it('that is blocking and full is signalled all the same, without a wait and without a look at it first', () => {
    write(fd, new Uint8Array(BigUint64Array.of(FULL).buffer), 8);
    expect(signalPeerEventFd(fd)).toBe(true);
    expect(signalPeerEventFd(fd)).toBe(true);
    expect(drainEventFd(fd)).toBe(FULL + 1n);
  });

  it('keeps its flags', () => {
    signalPeerEventFd(fd);
    expect(fcntl(fd, F_GETFL, 0) & O_NONBLOCK).toBe(0);
  });
});

it.each([
  ['a socket', () => socketPair()],
  ['a number that is no open fd', () => []],
])('%s is not signalled', (_, open) => {
  const fds: number[] = open();
  expect(signalPeerEventFd(fds[0] ?? 9999)).toBe(false);
  fds.forEach(closeFd);
});
