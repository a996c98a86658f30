// Files that are neither memory nor eventfds, as a confused VMM may send them.

import { execFileSync } from 'node:child_process';
import { constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { socketPair } from '../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../protocol/unix/libc.ts';

/** For `it.each`: what it is, and how a new fd of it is opened; the caller closes it. */
export const STRANGE_FILES: readonly [string, () => number][] = [
  ['a pipe', openPipe],
  ['a socket', openSocket],
  ['a device', () => openSync('/dev/null', 'r+')],
  ['a folder', () => openSync(tmpdir(), 'r')],
  ['a file of the kernel’s own', () => openSync('/proc/self/status', 'r')],
];

function openPipe(): number {
  const folder = mkdtempSync(join(tmpdir(), 'vfu-'));
  const path = join(folder, 'pipe');
  execFileSync('mkfifo', [path]);
  const fd = openSync(path, constants.O_RDWR);
  rmSync(folder, { recursive: true });
  return fd;
}

function openSocket(): number {
  const [ours, theirs] = socketPair();
  closeFd(theirs);
  return ours;
}
