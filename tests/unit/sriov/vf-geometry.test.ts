import { describe, expect, it } from 'vitest';
import { barWriteMasks } from '../../../backend/pci/bars.ts';
import {
  pageSizeOf,
  SUPPORTED_PAGE_SIZES,
  vfBarAddress,
  virtualVfBarSize,
} from '../../../backend/sriov/vf-geometry.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const PAGE_SIZES: [number, number][] = [
  [0x001, 4 * KIB],
  [0x002, 8 * KIB],
  [0x010, 64 * KIB],
  [0x040, 256 * KIB],
  [0x100, 1 * MIB],
  [0x400, 4 * MIB],
];

describe('page sizes', () => {
  it('the six sizes of the standard are supported and no other', () => {
    const all = PAGE_SIZES.reduce((mask, [bit]) => mask | bit, 0);
    expect(all).toBe(SUPPORTED_PAGE_SIZES);
  });

  it.each(PAGE_SIZES)('System Page Size %i means %i bytes', (register, bytes) => {
    expect(pageSizeOf(register)).toBe(bytes);
  });

  it('no bit means 4 KiB, of several bits the lowest counts, and unsupported bits do not', () => {
    expect(pageSizeOf(0)).toBe(4 * KIB);
    expect(pageSizeOf(0x410)).toBe(64 * KIB);
    expect(pageSizeOf(0x4)).toBe(4 * KIB);
  });
});

describe('VF BARs', () => {
  it.each(PAGE_SIZES)(
    'with System Page Size %i a 16 KiB VF BAR is never smaller than the page',
    (_, page) => {
      expect(virtualVfBarSize(16 * KIB, page)).toBe(Math.max(16 * KIB, page));
    },
  );

  it.each(PAGE_SIZES)('with System Page Size %i VF i sits i pages above the base', (_, page) => {
    const size = virtualVfBarSize(4 * KIB, page);
    expect(vfBarAddress(0x38_0000_0000n, size, 3)).toBe(0x38_0000_0000n + 3n * BigInt(page));
  });

  it('addresses above 4 GiB and VFs in their hundreds stay exact', () => {
    expect(vfBarAddress(0xffff_0000_0000_0000n, 2 ** 32, 255)).toBe(
      0xffff_0000_0000_0000n + 255n * 2n ** 32n,
    );
  });

  it('sizing a 16 KiB VF BAR under 1 MiB pages shows 1 MiB', () => {
    const size = virtualVfBarSize(16 * KIB, 1 * MIB);
    const shape = { index: 0, size, kind: 'memory64', prefetchable: true } as const;
    expect(barWriteMasks(shape)).toEqual({ low: 0xfff0_0000, high: 0xffff_ffff });
  });
});
