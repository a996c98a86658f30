// One holder at a time of a lock file, across processes: the kernel lets go when the holder ends, however it ends.
// The file stays behind; only its lock says something.
import { constants, openSync } from 'node:fs';
import { check, closeFd, ErrnoNumber, flock } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

/** An fd that holds the lock until it is closed, or undefined if somebody else holds it. Throws if the file cannot be opened. */
export function tryLock(path: string): number | undefined {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  const result = flock(fd, LOCK_EX | LOCK_NB);
  if (result === 0) return fd;
  closeFd(fd);
  if (result !== -ErrnoNumber.EWOULDBLOCK) check('flock', result, path);
  return undefined;
}
