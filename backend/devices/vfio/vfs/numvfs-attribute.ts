// The file `sriov_numvfs` itself. A call may block for seconds, or for good: used in processes of their own alone.
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { Errno } from '../../../../protocol/errno.ts';

/** What came of it: the number that is there, or the system's errno. */
export type Outcome = { readonly value: number } | { readonly errno: number };

/** Reads it, or writes `count`. */
export function accessNumVfs(path: string, count?: number): Outcome {
  try {
    if (count === undefined) {
      return { value: Number(readFileSync(path, 'utf8').trim()) };
    }
    const fd = openSync(path, 'w');
    try {
      // In one write: the kernel acts on each.
      writeSync(fd, String(count));
    } finally {
      closeSync(fd);
    }
    return { value: count };
  } catch (error) {
    return { errno: -((error as NodeJS.ErrnoException).errno ?? -Errno.EIO) };
  }
}
