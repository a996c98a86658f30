import { closeSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ErrnoNumber, fallocate } from '../../../../protocol/unix/libc.ts';
import { createPreallocatedFile } from '../../../../protocol/unix/preallocated-file.ts';

const BYTES = 1 << 20;

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'preallocated-'));
  path = join(folder, 'file');
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

it('has its room when it is made', () => {
  closeSync(createPreallocatedFile(path, BYTES, () => false));
  const { size, blocks, mode } = statSync(path);
  expect([size, mode & 0o777]).toEqual([BYTES, 0o600]);
  expect(blocks * 512).toBeGreaterThanOrEqual(BYTES);
});

it.each([
  [
    'a full disk',
    ErrnoNumber.ENOSPC,
    /no room for 1048576 bytes: .*; make room on that file system/,
  ],
  ['a quota that is used up', ErrnoNumber.EDQUOT, /no room for .*; the quota is used up: delete/],
  ['a limit on the size of files', ErrnoNumber.EFBIG, /no room for .*; .*`ulimit -f` forbids it/],
  [
    'a file system that reserves nothing',
    ErrnoNumber.EOPNOTSUPP,
    /no room for .*; .*such as \/dev\/shm/,
  ],
])('%s is refused with its fix, and keeps none of the disk', (_, errno, message) => {
  const halfWay = (fd: number, offset: number, bytes: number): number => {
    fallocate(fd, offset, bytes / 2);
    return -errno;
  };
  expect(() => createPreallocatedFile(path, BYTES, () => false, halfWay)).toThrow(message);
  expect(statSync(path).blocks).toBe(0);
});
