// What of a VF goes into the BARs of its carrier.
import { describe, expect, it } from 'vitest';
import { piecesOf } from '../../../backend/device/carrier-pieces.ts';
import type { FunctionShape, RegionShape } from '../../../backend/device/physical-device.ts';
import { describeLoopback } from '../../fakes/loopback.ts';

const KIB = 1024;

/** A VF without MSI-X whose BARs may be mapped so. */
function vfWith(...bars: RegionShape['mappable'][]): FunctionShape {
  const regions = bars.map((mappable, at) => ({
    index: 2 * at,
    size: 1024 * KIB,
    readable: true,
    writable: true,
    mappable,
  }));
  return { config: new Uint8Array(4096), bars: [], regions, irqs: [] };
}

function loopbackVf(vfBarSize: number): FunctionShape {
  return describeLoopback({ totalVfs: 1, vfBarSize, enableMilliseconds: 0 }).vf;
}

describe('the pieces of a VF', () => {
  it('are one where all of a BAR may be mapped', () => {
    expect(piecesOf(vfWith([{ offset: 0, size: 16 * KIB }]))).toEqual([
      { carrierBar: 0, vfBar: 0, offset: 0, size: 16 * KIB },
    ]);
  });

  it('are naturally aligned powers of two, the largest first, each in a BAR of 64 bits', () => {
    expect(piecesOf(loopbackVf(64 * KIB))).toEqual([
      { carrierBar: 0, vfBar: 0, offset: 32 * KIB, size: 32 * KIB },
      { carrierBar: 2, vfBar: 0, offset: 16 * KIB, size: 16 * KIB },
      { carrierBar: 4, vfBar: 0, offset: 8 * KIB, size: 8 * KIB },
    ]);
  });

  it('leave out the pages of MSI-X table and pending bits, though the host would map them', () => {
    const vf = loopbackVf(16 * KIB);
    const all = vf.regions.map((region) =>
      region.index === 0 ? { ...region, mappable: [{ offset: 0, size: 16 * KIB }] } : region,
    );
    expect(piecesOf({ ...vf, regions: all })).toEqual([
      { carrierBar: 0, vfBar: 0, offset: 8 * KIB, size: 8 * KIB },
      { carrierBar: 2, vfBar: 0, offset: 0, size: 4 * KIB },
    ]);
  });

  it('are three at most, the largest', () => {
    const area = (size: number) => [{ offset: 0, size: size * KIB }];
    const sizes = piecesOf(vfWith(area(4), area(64), [{ offset: 0, size: 48 * KIB }]));
    expect(sizes.map(({ vfBar, size }) => [vfBar, size / KIB])).toEqual([
      [2, 64],
      [4, 32],
      [4, 16],
    ]);
  });

  it('are none where nothing may be mapped, or less than a page', () => {
    expect(piecesOf(vfWith([], [{ offset: 0x800, size: 4 * KIB }]))).toEqual([]);
  });
});
