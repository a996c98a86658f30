import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { gather, scatter, slice } from '../../../../backend/devices/kit/guest-memory.ts';

const SIZE = 256;

/** Guest memory of 256 bytes from address 0. */
function memoryOf(bytes: Uint8Array) {
  const fits = (address: bigint, length: number) => Number(address) + length <= bytes.length;
  return {
    read: (address: bigint, into: Uint8Array) => {
      into.set(bytes.subarray(Number(address), Number(address) + into.length));
      return fits(address, into.length);
    },
    write: (address: bigint, from: Uint8Array) => {
      if (fits(address, from.length)) {
        bytes.set(from, Number(address));
      }
      return fits(address, from.length);
    },
  };
}

/** Segments that do not touch each other. */
const segments = fc
  .uniqueArray(fc.nat({ max: SIZE / 16 - 1 }), { minLength: 1, maxLength: 8 })
  .chain((rows) =>
    fc.tuple(
      ...rows.map((row) =>
        fc.integer({ min: 1, max: 16 }).map((length) => ({ address: BigInt(row * 16), length })),
      ),
    ),
  );

describe('scatter lists', () => {
  it('give back what was spread over them', () => {
    fc.assert(
      fc.property(segments, (list) => {
        const memory = memoryOf(new Uint8Array(SIZE));
        const total = list.reduce((sum, { length }) => sum + length, 0);
        const bytes = Uint8Array.from({ length: total }, (_, i) => i + 1);
        expect(scatter(memory, list, bytes)).toBeUndefined();
        const back = new Uint8Array(total);
        expect(gather(memory, list, back)).toBeUndefined();
        expect(back).toEqual(bytes);
      }),
    );
  });

  it('can be cut anywhere', () => {
    fc.assert(
      fc.property(segments, fc.nat(64), fc.nat(64), (list, skip, length) => {
        const bytes = Uint8Array.from({ length: SIZE }, (_, i) => i);
        const total = list.reduce((sum, each) => sum + each.length, 0);
        const whole = new Uint8Array(total);
        gather(memoryOf(bytes), list, whole);
        const piece = whole.subarray(skip, skip + length);
        const cut = new Uint8Array(piece.length);
        gather(memoryOf(bytes), slice(list, skip, length), cut);
        expect(cut).toEqual(piece);
      }),
    );
  });

  it('tell which segment is not mapped', () => {
    const memory = memoryOf(new Uint8Array(SIZE));
    const list = [
      { address: 0n, length: 4 },
      { address: 254n, length: 4 },
    ];
    expect(scatter(memory, list, new Uint8Array(8))).toBe(list[1]);
    expect(gather(memory, list, new Uint8Array(8))).toBe(list[1]);
  });
});
