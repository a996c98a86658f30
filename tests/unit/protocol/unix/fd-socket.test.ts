import {
  existsSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  acceptUnix,
  closeListener,
  connectUnix,
  listenUnix,
  SocketBuffer,
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
  LOCK_EX,
  O_NONBLOCK,
  SOCK_DGRAM,
} from '../../../../protocol/unix/kernel-numbers.ts';
import { closeFd, ErrnoNumber, fcntl, flock, socketpair } from '../../../../protocol/unix/libc.ts';
import { createMemfd, fileIdentity, readAt, writeAt } from '../../../../protocol/unix/memory.ts';
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

describe('listenUnix', () => {
  it('makes a socket file that only its owner may use', () => {
    const mask = process.umask(0);
    const fd = listenUnix(path).fd;
    process.umask(mask);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expectNonBlockingAndCloseOnExec(fd);
    closeFd(fd);
  });

  it('replaces the file of a server that is gone', () => {
    closeFd(listenUnix(path).fd);
    expect(() => connectUnix(path)).toThrow('ECONNREFUSED');
    const fd = listenUnix(path).fd;
    const client = connectUnix(path);
    const server = acceptUnix(fd);
    expect(server).toBeGreaterThan(0);
    for (const open of [client, server, fd]) {
      closeFd(open);
    }
  });

  it('refuses the path of a live server, which goes on serving', () => {
    const live = listenUnix(path).fd;
    expect(() => listenUnix(path)).toThrow(
      `bind ${path}: address already in use (EADDRINUSE); another process serves it`,
    );
    const probe = acceptUnix(live);
    const client = connectUnix(path);
    const served = acceptUnix(live);
    expect(served).toBeGreaterThan(0);
    for (const fd of [served, client, probe, live]) {
      closeFd(fd);
    }
  });

  it('refuses a live server whose queue is full', () => {
    const live = listenUnix(path).fd;
    const waiting: number[] = [];
    expect(() => {
      for (;;) {
        waiting.push(connectUnix(path));
      }
    }).toThrow('EAGAIN');
    expect(() => listenUnix(path)).toThrow('EADDRINUSE');
    for (const fd of [...waiting, live]) {
      closeFd(fd);
    }
  });

  it('leaves a file alone that is not a socket', () => {
    writeFileSync(path, 'precious');
    expect(() => listenUnix(path)).toThrow('a file that is not a socket is there');
    expect(statSync(path).size).toBe(8);
  });

  it('leaves a symbolic link alone', () => {
    symlinkSync(join(folder, 'elsewhere'), path);
    expect(() => listenUnix(path)).toThrow('EADDRINUSE');
  });

  it('names the limit where the path is too long', () => {
    const long = join(folder, 'x'.repeat(100));
    expect(() => listenUnix(long)).toThrow(`${long.length} bytes and a socket path takes 107`);
  });

  it('takes a path of exactly 107 bytes', () => {
    const longest = join(folder, 'x'.repeat(106 - folder.length));
    expect(longest).toHaveLength(107);
    const fd = listenUnix(longest).fd;
    closeFd(connectUnix(longest));
    closeFd(fd);
  });

  it('refuses an empty path and one with a zero byte', () => {
    expect(() => listenUnix('')).toThrow('EINVAL');
    expect(() => listenUnix('a\0b')).toThrow('EINVAL');
  });

  it('names the path where the folder is a file', () => {
    writeFileSync(path, '');
    const inFile = join(path, 'vf0.sock');
    expect(() => listenUnix(inFile)).toThrow(`lstat ${inFile}: not a directory (ENOTDIR)`);
  });

  it('names the path where the folder is missing', () => {
    const lost = join(folder, 'missing', 'device.sock');
    expect(() => listenUnix(lost)).toThrow(`bind ${lost}: no such file or directory (ENOENT)`);
  });
});

describe('what a socket leaves behind', () => {
  it('is nothing when its listener is closed', () => {
    closeListener(listenUnix(path));
    expect(existsSync(path)).toBe(false);
  });

  it('does not include the socket that a successor has put at the path since', () => {
    const first = listenUnix(path);
    unlinkSync(path);
    const successor = listenUnix(path);
    closeListener(first);
    closeFd(connectUnix(path));
    closeListener(successor);
    expect(existsSync(path)).toBe(false);
  });

  it('may be gone already', () => {
    const listener = listenUnix(path);
    unlinkSync(path);
    closeListener(listener);
    expect(existsSync(path)).toBe(false);
  });
});

describe('a folder that somebody keeps locked', () => {
  it('delays all sockets there by half a second together', () => {
    const lock = openSync(folder, 'r');
    expect(flock(lock, LOCK_EX)).toBe(0);
    const began = performance.now();
    const listeners = Array.from({ length: 20 }, (_, index) =>
      listenUnix(join(folder, `${index}.sock`)),
    );
    expect(performance.now() - began).toBeLessThan(2000);
    listeners.forEach(closeListener);
    closeFd(lock);
  });
});

describe('a path that is no UTF-8', () => {
  it('is refused: Node has made another one of it', () => {
    const mangled = join(folder, Buffer.from([0xe9, 0x2e, 0x73]).toString());
    expect(() => listenUnix(mangled)).toThrow('use a path in UTF-8');
  });
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

describe('SocketBuffer', () => {
  let pair: [number, number];
  beforeEach(() => {
    pair = socketPair();
  });
  afterEach(() => {
    for (const fd of pair) {
      if (fd >= 0) {
        closeFd(fd);
      }
    }
  });

  function text(buffer: SocketBuffer, length: number): string {
    return Buffer.from(buffer.data.subarray(0, length)).toString();
  }

  it('carries bytes from any offset', () => {
    const buffer = new SocketBuffer(64);
    buffer.data.set(Buffer.from('..message'));
    expect(buffer.send(pair[0], 2, 7)).toBe(7);
    const other = new SocketBuffer(64);
    expect(other.receive(pair[1])).toBe(7);
    expect(text(other, 7)).toBe('message');
    expect(other.fds).toEqual([]);
  });

  it('shares memory between data and view', () => {
    const buffer = new SocketBuffer(16);
    buffer.view.setUint32(4, 0x04030201, true);
    expect([...buffer.data.subarray(4, 8)]).toEqual([1, 2, 3, 4]);
  });

  it('carries fds that lead to the same files, close-on-exec', () => {
    const files = ['a', 'b', 'c'].map((name) => createMemfd(name, 4096));
    files.forEach((fd, i) => {
      writeAt(fd, Uint8Array.from([i + 1]), 100);
    });
    const buffer = new SocketBuffer(64);
    expect(buffer.send(pair[0], 3, 5, files)).toBe(5);
    const other = new SocketBuffer(64);
    expect(other.receive(pair[1])).toBe(5);
    const received = other.fds;
    expect(received.map(fileIdentity)).toEqual(files.map(fileIdentity));
    received.forEach((fd, i) => {
      const byte = new Uint8Array(1);
      expect(readAt(fd, byte, 100)).toBe(1);
      expect(byte[0]).toBe(i + 1);
      expect(fcntl(fd, F_GETFD, 0)).toBe(FD_CLOEXEC);
    });
    [...received, ...files].forEach(closeFd);
  });

  it('forgets the fds of one message at the next, without touching the array it gave out', () => {
    const file = createMemfd('a', 4096);
    const buffer = new SocketBuffer(64);
    const other = new SocketBuffer(64);
    buffer.send(pair[0], 0, 1, [file]);
    other.receive(pair[1]);
    const received = other.fds;
    buffer.send(pair[0], 0, 1);
    other.receive(pair[1]);
    expect(other.fds).toEqual([]);
    expect(received).toHaveLength(1);
    [...received, file].forEach(closeFd);
  });

  it('sends without fds after it sent with fds', () => {
    const file = createMemfd('a', 4096);
    const buffer = new SocketBuffer(64);
    const other = new SocketBuffer(64);
    buffer.data.set(Buffer.from('firstnext'));
    buffer.send(pair[0], 0, 5, [file]);
    other.receive(pair[1]);
    other.fds.forEach(closeFd);
    buffer.send(pair[0], 5, 4, []);
    expect(other.receive(pair[1])).toBe(4);
    expect(text(other, 4)).toBe('next');
    closeFd(file);
  });

  it('stops a receive after the message that carries fds', () => {
    const file = createMemfd('a', 4096);
    const buffer = new SocketBuffer(64);
    buffer.data.set(Buffer.from('AAAABBBBCCCC'));
    buffer.send(pair[0], 0, 4);
    buffer.send(pair[0], 4, 4, [file]);
    buffer.send(pair[0], 8, 4);
    const other = new SocketBuffer(64);
    expect(other.receive(pair[1])).toBe(8);
    expect(text(other, 8)).toBe('AAAABBBB');
    other.fds.forEach(closeFd);
    expect(other.receive(pair[1])).toBe(4);
    expect(other.fds).toEqual([]);
    closeFd(file);
  });

  it.each([1, 2, 3, 64])('takes exactly %i fds where that is the limit', (limit) => {
    const file = createMemfd('a', 4096);
    const sender = new SocketBuffer(64, 253);
    const receiver = new SocketBuffer(64, limit);
    sender.send(pair[0], 0, 8, Array(limit).fill(file));
    expect(receiver.receive(pair[1])).toBe(8);
    expect(receiver.fds).toHaveLength(limit);
    receiver.fds.forEach(closeFd);
    sender.send(pair[0], 0, 8, Array(limit + 1).fill(file));
    expect(receiver.receive(pair[1])).toBe(-ErrnoNumber.EMSGSIZE);
    expect(receiver.fds).toEqual([]);
    closeFd(file);
  });

  it('goes on working after a message with too many fds', () => {
    const file = createMemfd('a', 4096);
    const sender = new SocketBuffer(64);
    const receiver = new SocketBuffer(64, 1);
    sender.send(pair[0], 0, 8, [file, file, file]);
    receiver.receive(pair[1]);
    sender.send(pair[0], 0, 8, [file]);
    expect(receiver.receive(pair[1])).toBe(8);
    expect(receiver.fds).toHaveLength(1);
    [...receiver.fds, file].forEach(closeFd);
  });

  it('refuses to send more fds than its limit, or bytes outside of its data', () => {
    const buffer = new SocketBuffer(64, 2);
    expect(buffer.send(pair[0], 0, 8, [0, 0, 0])).toBe(-ErrnoNumber.EINVAL);
    expect(buffer.send(pair[0], 60, 8)).toBe(-ErrnoNumber.EFAULT);
    expect(buffer.send(pair[0], -1, 8)).toBe(-ErrnoNumber.EFAULT);
  });

  it('reports a bad fd among those to send', () => {
    expect(new SocketBuffer(64).send(pair[0], 0, 8, [0, 9999])).toBe(-ErrnoNumber.EBADF);
  });

  it('never waits for a message', () => {
    expect(new SocketBuffer(64).receive(pair[1])).toBe(-ErrnoNumber.EAGAIN);
  });

  it('never waits for room, and says how much was taken', () => {
    const buffer = new SocketBuffer(1 << 20);
    let taken = 0;
    let result: number;
    do {
      result = buffer.send(pair[0], 0, buffer.data.length);
      taken += Math.max(result, 0);
    } while (result > 0);
    expect(result).toBe(-ErrnoNumber.EAGAIN);
    let received = 0;
    while (received < taken) {
      received += buffer.receive(pair[1]);
    }
    expect(received).toBe(taken);
  });

  it('reads 0 after the peer closed, and what it sent before', () => {
    const buffer = new SocketBuffer(64);
    buffer.send(pair[0], 0, 3);
    closeFd(pair[0]);
    pair[0] = -1;
    expect(buffer.receive(pair[1])).toBe(3);
    expect(buffer.receive(pair[1])).toBe(0);
  });

  it('survives sending to a peer that is gone', () => {
    closeFd(pair[1]);
    pair[1] = -1;
    const buffer = new SocketBuffer(64);
    expect(buffer.send(pair[0], 0, 3)).toBe(-ErrnoNumber.EPIPE);
    expect(buffer.send(pair[0], 0, 3, [0])).toBe(-ErrnoNumber.EPIPE);
  });

  it('reports a closed fd', () => {
    const buffer = new SocketBuffer(64);
    expect(buffer.receive(9999)).toBe(-ErrnoNumber.EBADF);
    expect(buffer.send(9999, 0, 1)).toBe(-ErrnoNumber.EBADF);
  });

  it('leaks no fd over many messages', () => {
    const file = createMemfd('a', 4096);
    const buffer = new SocketBuffer(64);
    for (let i = 0; i < 2000; i++) {
      buffer.send(pair[0], 0, 8, [file, file]);
      buffer.receive(pair[1]);
      buffer.fds.forEach(closeFd);
    }
    closeFd(file);
  });
});
