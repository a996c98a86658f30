// One holder at a time of a lock file, across processes: the kernel lets go when the holder ends, however it ends.
// The file may stay behind; only its lock says something.
import { fstatSync, lstatSync, unlinkSync } from 'node:fs';
import { LOCK_EX, LOCK_NB } from './kernel-numbers.ts';
import { closeFd, ErrnoNumber, flock } from './libc.ts';
import { openPrivateFile } from './private-file.ts';
import { check } from './syscall-error.ts';

/** An fd that holds the lock until it is closed, or undefined if somebody else holds it. @throws SyscallError where the file cannot be opened, or is not this user's alone */
export function tryLock(path: string): number | undefined {
  for (;;) {
    const fd = openPrivateFile(path);
    let isCurrent = false;
    let result = -1;
    try {
      result = flock(fd, LOCK_EX | LOCK_NB);
      isCurrent = isFileAt(path, fd);
    } finally {
      if (result !== 0 || !isCurrent) {
        closeFd(fd);
      }
    }
    // Its holder removed it after we had opened it: the next file of that name is the lock.
    if (!isCurrent) {
      continue;
    }
    if (result === 0) {
      return fd;
    }
    if (result !== -ErrnoNumber.EWOULDBLOCK) {
      check('flock', result, path);
    }
    return undefined;
  }
}

/** Gives a lock back and removes its file, where it may. */
export function removeLock(path: string, fd: number): void {
  try {
    if (isFileAt(path, fd)) {
      unlinkSync(path);
    }
  } catch {
    // An empty file that stays behind does no harm.
  } finally {
    closeFd(fd);
  }
}

/** Locks an open file until its fd, and each copy of it, is closed; true where somebody else has. */
export function isLockedByAnother(fd: number): boolean {
  return flock(fd, LOCK_EX | LOCK_NB) === -ErrnoNumber.EWOULDBLOCK;
}

/** Whether the file at `path` is still the open one. */
export function isFileAt(path: string, fd: number): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino;
}
