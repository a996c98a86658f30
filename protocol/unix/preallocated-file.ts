// A file whose room on the disk is reserved when it is made, so that writing to it later cannot meet a full disk. Its
// maker holds a lock on it, which goes where the fd goes: nobody else makes it anew meanwhile.

import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { failedCall, UserError } from '../user-error.ts';
import { isFileAt, isLockedByAnother } from './flock.ts';
import { ErrnoNumber, fallocate } from './libc.ts';
import { SyscallError } from './syscall-error.ts';

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

/**
 * Makes `path`, of `bytes` bytes, readable and writable to its owner alone, close-on-exec. It begins with `mark` from the
 * start: a file that is there already is replaced where it is empty or begins so, and no one is left behind where it fails.
 * Gives its fd. `reserve` is what asks the file system for the room; it gives 0 or a negative errno. @throws UserError
 */
export function createPreallocatedFile(
  path: string,
  bytes: number,
  mark: Uint8Array,
  reserve: typeof fallocate = fallocate,
): number {
  const fd = open(path);
  try {
    refuseOthers(path, fd, mark);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  try {
    ftruncateSync(fd, 0);
    const result = reserve(fd, 0, bytes);
    if (result < 0) {
      const { what } = new SyscallError('fallocate', -result, path);
      throw new UserError(
        `${path}: no room for ${bytes} bytes: ${what}`,
        FIXES[-result] ?? 'choose a path on another file system',
      );
    }
    writeSync(fd, mark, 0, mark.length, 0);
    return fd;
  } catch (error) {
    discardPreallocatedFile(path, fd);
    throw error;
  }
}

/** Gives up a file that was made: it is closed, and gone where it is still there. */
export function discardPreallocatedFile(path: string, fd: number): void {
  try {
    // Whoever has opened it meanwhile, and waits for the lock, finds an empty one.
    ftruncateSync(fd, 0);
    if (isFileAt(path, fd)) {
      rmSync(path);
    }
  } finally {
    closeSync(fd);
  }
}

function open(path: string): number {
  const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  try {
    return openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
  } catch (error) {
    throw failedCall(error, 'choose a path that you may write to');
  }
}

function refuseOthers(path: string, fd: number, mark: Uint8Array): void {
  const stat = fstatSync(fd);
  if (!stat.isFile()) {
    throw new UserError(`${path} is not a regular file`, 'choose another path');
  }
  const head = new Uint8Array(Math.min(mark.length, stat.size));
  readSync(fd, head, 0, head.length, 0);
  if (stat.size > 0 && !mark.every((byte, at) => byte === head[at])) {
    throw new UserError(`${path} exists and holds something else`, 'choose another path');
  }
  if (isLockedByAnother(fd)) {
    throw new UserError(`${path} is being written by another process`, 'choose another path');
  }
}
