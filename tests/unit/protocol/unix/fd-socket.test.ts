import { openSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  acceptUnix,
  connectUnix,
  setNonBlocking,
  socketPair,
  streamSocketKind,
} from '../../../../protocol/unix/fd-socket.ts';
import { AF_UNIX, F_SETFL, SOCK_DGRAM } from '../../../../protocol/unix/kernel-numbers.ts';
import { closeFd, ErrnoNumber, fcntl, socketpair } from '../../../../protocol/unix/libc.ts';
import { listenUnix } from '../../../../protocol/unix/listener.ts';
import { createMemfd } from '../../../../protocol/unix/memory.ts';
import { leaveNoFdOpen } from './open-fds.ts';
import { expectNonBlockingAndCloseOnExec, useSocketFolder } from './socket-folder.ts';

let path: string;
leaveNoFdOpen();
useSocketFolder((_folder, made) => {
  path = made;
});

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
