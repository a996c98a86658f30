import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Errno } from '../../../../protocol/errno.ts';
import { socketPair } from '../../../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import { nonBlockingOutput } from '../../../../protocol/unix/non-blocking-output.ts';

const LINE = new TextEncoder().encode(`${'x'.repeat(99)}\n`);
const MOST_LINES = 100_000;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'output-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Writes lines until one finds no room; gives what it got, and after how many. */
function fill(output: (bytes: Uint8Array) => number): { result: number; lines: number } {
  for (let lines = 0; lines < MOST_LINES; lines++) {
    const result = output(LINE);
    if (result !== LINE.length) {
      return { result, lines };
    }
  }
  return { result: 0, lines: MOST_LINES };
}

it.each([
  ['may be opened anew', 0o600],
  ['may not', 0o000],
])(
  'a pipe that nobody reads and that %s gives EAGAIN, and stays blocking for others',
  (_what, mode) => {
    const path = join(folder, 'pipe');
    execFileSync('mkfifo', [path]);
    const fd = openSync(path, constants.O_RDWR);
    execFileSync('chmod', [mode.toString(8), path]);
    const { result, lines } = fill(nonBlockingOutput(fd));
    // The last line that a full pipe takes may be cut.
    expect([-Errno.EAGAIN, 36]).toContain(result);
    expect(lines).toBeGreaterThan(600);
    const flags = /flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
    expect(Number.parseInt(flags!, 8) & constants.O_NONBLOCK).toBe(0);
    closeSync(fd);
  },
);

it('a socket that nobody reads gives EAGAIN', () => {
  const [ours, theirs] = socketPair();
  expect(fill(nonBlockingOutput(ours)).result).toBe(-Errno.EAGAIN);
  closeFd(theirs);
  expect(nonBlockingOutput(ours)(LINE)).toBe(-Errno.EPIPE);
  closeFd(ours);
});

it('a file takes lines behind those that others write', () => {
  const path = join(folder, 'file');
  const fd = openSync(path, 'a');
  expect(nonBlockingOutput(fd)(LINE)).toBe(LINE.length);
  execFileSync('sh', ['-c', `echo other >> ${path}`]);
  expect(nonBlockingOutput(fd)(LINE)).toBe(LINE.length);
  expect(statSync(path).size).toBe(2 * LINE.length + 'other\n'.length);
  closeSync(fd);
});

it('a full disk gives ENOSPC', () => {
  const fd = openSync('/dev/full', 'w');
  expect(nonBlockingOutput(fd)(LINE)).toBe(-Errno.ENOSPC);
  closeSync(fd);
});

it('a pipe that is read takes more', () => {
  const path = join(folder, 'pipe');
  execFileSync('mkfifo', [path]);
  const fd = openSync(path, constants.O_RDWR);
  const output = nonBlockingOutput(fd);
  fill(output);
  readSync(fd, new Uint8Array(8192));
  expect(output(LINE)).toBe(LINE.length);
  closeSync(fd);
});
