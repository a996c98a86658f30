// A namespace's file that refuses: the command fails, and somebody is told why.
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import {
  BLOCK_BYTES,
  fileStorage,
  type Storage,
} from '../../../../backend/devices/nvme/storage.ts';

let folder: string;
let fds: number[];
let told: string[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'storage-'));
  fds = [];
  told = [];
});
afterEach(() => {
  fds.forEach(closeSync);
  rmSync(folder, { recursive: true });
});

function storageIn(path: string, flags: string): Storage {
  const fd = openSync(path, flags);
  fds.push(fd);
  return fileStorage(fd, { start: 0, bytes: 4 * BLOCK_BYTES }, (why) => told.push(why));
}

it('a full disk takes no block, and no zeros where it has no holes', () => {
  const full = storageIn('/dev/full', 'r+');
  const block = new Uint8Array(BLOCK_BYTES);
  expect([full.write(0, block), full.zero(0, BLOCK_BYTES)]).toEqual([false, false]);
  expect(told).toEqual([
    expect.stringMatching(/^pwrite: no space left on device \(ENOSPC\)/),
    expect.stringMatching(/^pwrite: no space left on device \(ENOSPC\)/),
  ]);
});

it('a file that was opened for reading only takes neither blocks nor holes', () => {
  const path = join(folder, 'file');
  writeFileSync(path, new Uint8Array(4 * BLOCK_BYTES));
  const file = storageIn(path, 'r');
  expect([file.write(0, new Uint8Array(BLOCK_BYTES)), file.zero(0, BLOCK_BYTES)]).toEqual([
    false,
    false,
  ]);
  expect(told.map((why) => why.replace(/:.*/, ''))).toEqual(['pwrite', 'fallocate']);
});

it('a file that somebody has cut short does not give what was in it', () => {
  const path = join(folder, 'file');
  writeFileSync(path, new Uint8Array(BLOCK_BYTES).fill(7));
  const file = storageIn(path, 'r+');
  const into = new Uint8Array(BLOCK_BYTES);
  expect([file.read(0, into), file.read(BLOCK_BYTES, into)]).toEqual([true, false]);
  expect(told).toEqual(['pread: the file is too short']);
});
