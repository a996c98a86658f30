import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { MOST_BYTES, readWholeFile } from '../../../../protocol/unix/whole-file.ts';
import { leaveNoFdOpen } from './open-fds.ts';

let folder: string;
leaveNoFdOpen();
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'whole-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

it('reads a file to its end, whatever its length', () => {
  const text = 'é'.repeat(100_001);
  const path = join(folder, 'text');
  writeFileSync(path, text);
  expect(readWholeFile(path)).toBe(text);
});

it('takes a file of the most bytes, and none that is longer', () => {
  const path = join(folder, 'large');
  writeFileSync(path, '');
  truncateSync(path, MOST_BYTES);
  expect(readWholeFile(path)).toHaveLength(MOST_BYTES);
  truncateSync(path, MOST_BYTES + 1);
  expect(() => readWholeFile(path)).toThrow(
    `read ${path}: file too large (EFBIG); name a file of at most`,
  );
});

it('refuses a file without an end', () => {
  expect(() => readWholeFile('/dev/zero')).toThrow('read /dev/zero: file too large (EFBIG)');
});

it('says why a file cannot be opened, or read', () => {
  const path = join(folder, 'none');
  expect(() => readWholeFile(path)).toThrow(`open ${path}: no such file or directory (ENOENT)`);
  expect(() => readWholeFile(folder)).toThrow(`read ${folder}: `);
});
