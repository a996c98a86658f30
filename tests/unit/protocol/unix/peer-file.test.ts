import { mkdtempSync, openSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { createEventFd } from '../../../../protocol/unix/eventfd.ts';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import { createMemfd } from '../../../../protocol/unix/memory.ts';
import { closePeerFile, peerFileKind } from '../../../../protocol/unix/peer-file.ts';
import { STRANGE_FILES } from '../../../protocol/strange-files.ts';
import { leaveNoFdOpen } from './open-fds.ts';

leaveNoFdOpen();

function openNewFile(folder: string, name = 'file'): number {
  const own = mkdtempSync(join(folder, 'vfu-'));
  const fd = openSync(join(own, name), 'w+');
  rmSync(own, { recursive: true });
  return fd;
}

describe('what kind of file an fd is', () => {
  it.each<[string, string, () => number]>([
    ['a memfd', 'memory', () => createMemfd('guest', 4096)],
    ['a memfd that may change its size', 'memory', () => createMemfd('g', 1, { resizable: true })],
    ['a file in RAM', 'memory', () => openNewFile('/dev/shm')],
    ['an eventfd', 'eventfd', createEventFd],
    ['a file on a disk', 'disk', () => openNewFile(dirname(fileURLToPath(import.meta.url)))],
    [
      'a file that is called like an eventfd',
      'memory',
      () => openNewFile('/dev/shm', 'anon_inode:[eventfd]'),
    ],
  ])('%s is %s', (_, kind, open) => {
    const fd = open();
    expect(peerFileKind(fd)).toBe(kind);
    closePeerFile(fd, () => expect.unreachable());
  });

  it.each(STRANGE_FILES)('%s is neither, and closed elsewhere', (_, open) => {
    const fd = open();
    const elsewhere: number[] = [];
    expect(peerFileKind(fd)).toBe('other');
    closePeerFile(fd, (each) => elsewhere.push(each));
    expect(elsewhere).toEqual([fd]);
    closeFd(fd);
  });

  it('a number that is no open fd is neither', () => {
    expect(peerFileKind(9999)).toBe('other');
  });
});
