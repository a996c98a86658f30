import { expect, it } from 'vitest';
import { allOnes, loadUint, storeUint } from '../../../protocol/little-endian.ts';

it.each([
  [1, 0xf1],
  [2, 0xe2f1],
  [3, 0xd3_e2f1],
  [4, 0xc4d3_e2f1],
])('%i bytes are an unsigned number, lowest first', (length, value) => {
  const bytes = new Uint8Array(6);
  storeUint(bytes, 1, length, value);
  expect(bytes).toEqual(
    Uint8Array.from([0, 0xf1, 0xe2, 0xd3, 0xc4, 0].map((byte, at) => (at > length ? 0 : byte))),
  );
  expect(loadUint(bytes, 1, length)).toBe(value);
});

it('a bus without an answer gives ones', () => {
  expect([1, 2, 4].map(allOnes)).toEqual([0xff, 0xffff, 0xffff_ffff]);
});

it('bytes beyond the end count as 0 and are dropped', () => {
  const bytes = Uint8Array.of(1);
  storeUint(bytes, 0, 4, 0xdddd_ddcc);
  expect(loadUint(bytes, 0, 4)).toBe(0xcc);
});
