import {
  closeSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ErrnoNumber, fallocate } from '../../../../protocol/unix/libc.ts';
import { createPreallocatedFile } from '../../../../protocol/unix/preallocated-file.ts';

const BYTES = 1 << 20;
const MARK = Uint8Array.of(1, 2, 3);

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
  closeSync(createPreallocatedFile(path, BYTES, MARK));
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
])('%s is refused with its fix, and leaves no file', (_, errno, message) => {
  const halfWay = (fd: number, offset: number, bytes: number): number => {
    fallocate(fd, offset, bytes / 2);
    return -errno;
  };
  expect(() => createPreallocatedFile(path, BYTES, MARK, halfWay)).toThrow(message);
  expect(existsSync(path)).toBe(false);
});

it('is one that may be made anew, as soon as it is there and as long as nobody writes it', () => {
  const fd = createPreallocatedFile(path, BYTES, MARK);
  expect([...readFileSync(path).subarray(0, 4)]).toEqual([1, 2, 3, 0]);
  expect(() => createPreallocatedFile(path, BYTES, MARK)).toThrow(/is being written by another/);
  expect(statSync(path).size).toBe(BYTES);
  closeSync(fd);
  closeSync(createPreallocatedFile(path, BYTES, MARK));
});

it.each([
  ['a file of somebody else’s', (): void => writeFileSync(path, 'the only copy of my thesis')],
  ['one that is as short as a part of the mark', (): void => writeFileSync(path, '\u0001\u0002')],
])('%s is not overwritten', (_what, write) => {
  write();
  const before = readFileSync(path);
  expect(() => createPreallocatedFile(path, BYTES, MARK)).toThrow(/holds something else/);
  expect(readFileSync(path)).toEqual(before);
});
