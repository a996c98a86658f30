import { describe, expect, it } from 'vitest';
import {
  assertBarShapes,
  type BarShape,
  barAddress,
  barRegisterValue,
  barType,
  barWriteMasks,
} from '../../../backend/pci/bars.ts';

const GIB = 2 ** 30;

function bar(kind: BarShape['kind'], size: number, prefetchable = false, index = 0): BarShape {
  return { index, size, kind, prefetchable };
}

it.each<[BarShape, number, number, number]>([
  [bar('io', 32), 0x1, 0xffff_ffe0, 0],
  [bar('memory32', 16), 0x0, 0xffff_fff0, 0],
  [bar('memory32', 2 * GIB), 0x0, 0x8000_0000, 0],
  [bar('memory32', 4096, true), 0x8, 0xffff_f000, 0],
  [bar('memory64', 16384, true), 0xc, 0xffff_c000, 0xffff_ffff],
  [bar('memory64', 4 * GIB), 0x4, 0, 0xffff_ffff],
  [bar('memory64', 8 * GIB, true), 0xc, 0, 0xffff_fffe],
])('%o has type bits %i and write masks %i and %i', (shape, type, low, high) => {
  expect(barRegisterValue(shape)).toBe(type);
  expect(barWriteMasks(shape)).toEqual({ low, high });
});

it.each([
  bar('io', 4),
  bar('memory32', 16),
  bar('memory32', 2 * GIB, true),
  bar('memory64', 16384, true),
  bar('memory64', 4 * GIB),
  bar('memory64', 1024 * GIB, true, 4),
])('the type of %o comes back from its register, with an address in it', (shape) => {
  const { kind, prefetchable } = shape;
  expect(barType((0xc000_0000 | barRegisterValue(shape)) >>> 0)).toEqual({ kind, prefetchable });
});

it('addresses leave the type bits out and take the upper half of 64-bit BARs only', () => {
  expect(barAddress(bar('memory64', 4096), 0xfe00_000c, 0x38)).toBe(0x38_fe00_0000n);
  expect(barAddress(bar('memory32', 4096), 0xfe00_0008, 0x38)).toBe(0xfe00_0000n);
  expect(barAddress(bar('io', 32), 0xc001, 0)).toBe(0xc000n);
});

describe('shapes that cannot stand in one function are refused', () => {
  it.each<[string, BarShape[], string]>([
    [
      'a BAR in an upper half',
      [bar('memory64', 4096), bar('memory32', 4096, false, 1)],
      'BAR 1 (memory32) overlaps BAR 0',
    ],
    ['one index twice', [bar('io', 4), bar('io', 4)], 'BAR 0 (io) overlaps BAR 0'],
    ['a 64-bit BAR at 5', [bar('memory64', 4096, false, 5)], 'BARs 0 to 5 only'],
    ['an index of 6', [bar('memory32', 4096, false, 6)], 'BARs 0 to 5 only'],
    ['a size of 0', [bar('memory32', 0)], 'a size of 0 bytes'],
    ['8 bytes of memory', [bar('memory32', 8)], 'a size of 8 bytes'],
    ['4 GiB in 32 bits', [bar('memory32', 4 * GIB)], 'a size of 4294967296 bytes'],
  ])('%s', (_, shapes, message) => {
    expect(() => assertBarShapes(shapes)).toThrow(message);
  });

  it('but neighbours are fine', () => {
    const shapes = [bar('memory64', 4096), bar('memory32', 4096, false, 2), bar('io', 4, false, 5)];
    expect(() => assertBarShapes(shapes)).not.toThrow();
  });
});
