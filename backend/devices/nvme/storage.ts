// What a namespace's blocks are kept in: a stretch of a file, or of a file in RAM. Reads and writes are the page cache's: a
// block of a file that is not in it is waited for. What was written is on the disk after a sync.

import { constants } from 'node:os';
import { punchHole } from '../../../protocol/unix/libc.ts';
import { readAt, writeAt } from '../../../protocol/unix/memory.ts';
import { SyscallError } from '../../../protocol/unix/syscall-error.ts';
import type { FilePlace } from '../../device/physical-device.ts';

export const BLOCK_BYTES = 512;

/** Offsets and lengths in bytes, inside the namespace; false where the file refused. */
export interface Storage {
  readonly bytes: number;
  read(offset: number, into: Uint8Array): boolean;
  write(offset: number, from: Uint8Array): boolean;
  /** Where an offset is in a file, for memory that can be copied to and from it. */
  placeOf(offset: number): FilePlace;
  /** From now on the range reads zeros. */
  zero(offset: number, length: number): boolean;
  /** Has all that was written put on the disk, and tells later whether it is there; undefined where there is no disk. */
  readonly sync: Sync | undefined;
}

export type Sync = (done: (isOnDisk: boolean) => void) => void;

/** One at a time: all that ask while one is under way are answered by the next. */
export function oneAtATime(sync: Sync): Sync {
  let waiting: ((isOnDisk: boolean) => void)[] = [];
  let isUnderWay = false;
  const begin = (): void => {
    const asked = waiting;
    waiting = [];
    isUnderWay = true;
    sync((isOnDisk) => {
      isUnderWay = false;
      if (waiting.length > 0) {
        begin();
      }
      for (const done of asked) {
        done(isOnDisk);
      }
    });
  };
  return (done) => {
    waiting.push(done);
    if (!isUnderWay) {
      begin();
    }
  };
}

/** Told why a file did not give or take all bytes. */
export type Refused = (why: string) => void;

/** `start` and `bytes` in the file; the fd stays its owner's. */
export function fileStorage(
  fd: number,
  { start, bytes }: { readonly start: number; readonly bytes: number },
  refused: Refused,
  sync?: Sync,
): Storage {
  const isAll = (call: string, result: number, wanted: number): boolean => {
    if (result !== wanted) {
      refused(
        result < 0 ? new SyscallError(call, -result).message : `${call}: the file is too short`,
      );
    }
    return result === wanted;
  };
  const write = (offset: number, from: Uint8Array): boolean =>
    isAll('pwrite', writeAt(fd, from, start + offset), from.length);
  return {
    bytes,
    sync,
    read: (offset, into) => isAll('pread', readAt(fd, into, start + offset), into.length),
    write,
    placeOf: (offset) => ({ fd, offset: start + offset }),
    zero(offset, length) {
      const result = punchHole(fd, start + offset, length);
      // A device file or an old file system has no holes.
      const isUnable = [constants.errno.EOPNOTSUPP, constants.errno.ENODEV].includes(-result);
      return isUnable ? write(offset, new Uint8Array(length)) : isAll('fallocate', result, 0);
    },
  };
}
