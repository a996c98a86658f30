import { existsSync, openSync, statSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { acceptUnix, connectUnix } from '../../../../protocol/unix/fd-socket.ts';
import { LOCK_EX } from '../../../../protocol/unix/kernel-numbers.ts';
import { closeFd, flock } from '../../../../protocol/unix/libc.ts';
import { closeListener, listenUnix } from '../../../../protocol/unix/listener.ts';
import { leaveNoFdOpen } from './open-fds.ts';
import { expectNonBlockingAndCloseOnExec, useSocketFolder } from './socket-folder.ts';

let folder: string;
let path: string;
leaveNoFdOpen();
useSocketFolder((...made) => {
  [folder, path] = made;
});

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
