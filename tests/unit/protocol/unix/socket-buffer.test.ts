import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { socketPair } from '../../../../protocol/unix/fd-socket.ts';
import { F_GETFD, FD_CLOEXEC } from '../../../../protocol/unix/kernel-numbers.ts';
import { closeFd, ErrnoNumber, fcntl } from '../../../../protocol/unix/libc.ts';
import { createMemfd, fileIdentity, readAt, writeAt } from '../../../../protocol/unix/memory.ts';
import { SocketBuffer } from '../../../../protocol/unix/socket-buffer.ts';
import { leaveNoFdOpen } from './open-fds.ts';

leaveNoFdOpen();

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
