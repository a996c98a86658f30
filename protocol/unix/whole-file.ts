// A small file that a person has named, as text. One that has no end, as /dev/zero, would take all memory and end the
// process without a word.
import { closeSync, openSync, readSync } from 'node:fs';
import { ErrnoNumber } from './libc.ts';
import { onFile } from './on-file.ts';
import { SyscallError } from './syscall-error.ts';

/** More than what lspci prints of a large host. */
export const MOST_BYTES = 16 * 2 ** 20;
const PIECE_BYTES = 64 * 1024;
const STDIN = 0;

/** All of the file, or of standard input (0). @throws SyscallError, EFBIG where it is longer than `MOST_BYTES` */
export function readWholeFile(path: string | typeof STDIN): string {
  if (path === STDIN) {
    return readToEnd(STDIN, 'standard input');
  }
  const fd = onFile('open', path, () => openSync(path, 'r'));
  try {
    return readToEnd(fd, path);
  } finally {
    closeSync(fd);
  }
}

function readToEnd(fd: number, path: string): string {
  const pieces: Uint8Array[] = [];
  for (let left = MOST_BYTES; left >= 0; ) {
    const piece = new Uint8Array(PIECE_BYTES);
    const got = onFile('read', path, () => readSync(fd, piece));
    if (got === 0) {
      return Buffer.concat(pieces).toString('utf8');
    }
    pieces.push(piece.subarray(0, got));
    left -= got;
  }
  const fix = `name a file of at most ${MOST_BYTES} bytes`;
  throw new SyscallError('read', ErrnoNumber.EFBIG, path, fix);
}
