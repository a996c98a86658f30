import { mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  acceptUnix,
  connectUnix,
  setNonBlocking,
  socketPair,
  streamSocketKind,
} from '../../../../protocol/unix/fd-socket.ts';
import {
  AF_UNIX,
  F_GETFD,
  F_GETFL,
  F_SETFL,
  FD_CLOEXEC,
  O_NONBLOCK,
  SOCK_DGRAM,
} from '../../../../protocol/unix/kernel-numbers.ts';
import { closeFd, ErrnoNumber, fcntl, socketpair } from '../../../../protocol/unix/libc.ts';
import { listenUnix } from '../../../../protocol/unix/listener.ts';
import { createMemfd } from '../../../../protocol/unix/memory.ts';
import { openFds } from './open-fds.ts';

let folder: string;
let path: string;
let before: number;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fd-socket-'));
  path = join(folder, 'device.sock');
  before = openFds();
});
afterEach(() => {
  rmSync(folder, { recursive: true });
  expect(openFds()).toBe(before);
});

function expectNonBlockingAndCloseOnExec(fd: number): void {
  expect(fcntl(fd, F_GETFL, 0) & O_NONBLOCK).toBe(O_NONBLOCK);
  expect(fcntl(fd, F_GETFD, 0) & FD_CLOEXEC).toBe(FD_CLOEXEC);
}

describe('a socket that somebody handed over', () => {
  it('is told by what it is', () => {
    const { fd } = listenUnix(path);
    const [stream, otherStream] = socketPair();
    const pair = new Uint8Array(8);
    expect(socketpair(AF_UNIX, SOCK_DGRAM, pair)).toBe(0);
    const datagrams = Array.from(new Int32Array(pair.buffer));
    const file = openSync('/dev/null', 'r');
    expect([fd, stream, datagrams[0]!, file, -1].map(streamSocketKind)).toEqual([
      'listening',
      'connected',
      'other',
      'other',
      'other',
    ]);
    for (const open of [fd, stream, otherStream, ...datagrams, file]) {
      closeFd(open);
    }
  });
});

describe('connecting', () => {
  it('has nothing to accept before a client comes', () => {
    const fd = listenUnix(path).fd;
    expect(acceptUnix(fd)).toBe(-ErrnoNumber.EAGAIN);
    closeFd(fd);
  });

  it('gives both ends non-blocking and close-on-exec', () => {
    const listener = listenUnix(path).fd;
    const client = connectUnix(path);
    const server = acceptUnix(listener);
    expectNonBlockingAndCloseOnExec(client);
    expectNonBlockingAndCloseOnExec(server);
    for (const fd of [client, server, listener]) {
      closeFd(fd);
    }
  });

  it('says why nobody answers', () => {
    expect(() => connectUnix(path)).toThrow(`connect ${path}: no such file or directory (ENOENT)`);
    closeFd(listenUnix(path).fd);
    expect(() => connectUnix(path)).toThrow('ECONNREFUSED');
  });

  it('reports an fd that is not a listening socket', () => {
    expect(acceptUnix(-1)).toBe(-ErrnoNumber.EBADF);
    const file = createMemfd('file', 4096);
    expect(acceptUnix(file)).toBe(-ErrnoNumber.ENOTSOCK);
    closeFd(file);
  });

  it('makes an inherited fd non-blocking', () => {
    const pair = socketPair();
    fcntl(pair[0], F_SETFL, 0);
    setNonBlocking(pair[0]);
    expectNonBlockingAndCloseOnExec(pair[0]);
    pair.forEach(closeFd);
  });
});
