// A file whose room on the disk is reserved when it is made, so that writing to it later cannot meet a full disk.

import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync } from 'node:fs';
import { UserError } from '../user-error.ts';
import { ErrnoNumber, fallocate, SyscallError } from './libc.ts';

/** What a person can do, by errno. */
const FIXES: Readonly<Record<number, string>> = {
  [ErrnoNumber.ENOSPC]: 'make room on that file system, or ask for a smaller file',
  [ErrnoNumber.EDQUOT]:
    'the quota is used up: delete something of yours, or ask for a smaller file',
  [ErrnoNumber.EFBIG]:
    'files there can’t be that large, or `ulimit -f` forbids it: ask for a smaller one',
  [ErrnoNumber.EOPNOTSUPP]:
    'that file system can’t reserve room: choose one that can, such as /dev/shm',
};

/** How many bytes of an existing file decide whether it may be replaced. */
const HEAD_BYTES = 64;

/**
 * Makes `path`, of `bytes` bytes, readable and writable to its owner alone, close-on-exec. A file that is there already
 * is replaced where it is empty or `mayReplace` says so of its first bytes. Gives its fd. `reserve` is what asks the file
 * system for the room; it gives 0 or a negative errno. @throws UserError
 */
export function createPreallocatedFile(
  path: string,
  bytes: number,
  mayReplace: (head: Uint8Array) => boolean,
  reserve: typeof fallocate = fallocate,
): number {
  const fd = open(path);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) {
      throw new UserError(`${path} is not a regular file`, 'choose another path');
    }
    const head = new Uint8Array(Math.min(HEAD_BYTES, stat.size));
    readSync(fd, head, 0, head.length, 0);
    if (stat.size > 0 && !mayReplace(head)) {
      throw new UserError(`${path} exists and holds something else`, 'choose another path');
    }
    ftruncateSync(fd, 0);
    const result = reserve(fd, 0, bytes);
    if (result < 0) {
      // Some file systems keep what they had found by then.
      ftruncateSync(fd, 0);
      const { what } = new SyscallError('fallocate', -result, path);
      throw new UserError(
        `${path}: no room for ${bytes} bytes: ${what}`,
        FIXES[-result] ?? 'choose a path on another file system',
      );
    }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function open(path: string): number {
  const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  try {
    return openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
  } catch (error) {
    throw new UserError((error as Error).message, 'choose a path that you may write to');
  }
}
