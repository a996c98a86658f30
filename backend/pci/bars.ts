// Base Address Registers: from a BAR's shape to its register bits, and back.
// PCIe Base 4.0, "Base Address Registers". Used for PF BARs, VF BARs in the SR-IOV capability, and slots.

import { loadUint } from '../../protocol/little-endian.ts';

export const BAR_KINDS = ['memory32', 'memory64', 'io'] as const;

/** `size` in bytes, a power of two; a 64-bit BAR also takes the register after `index`. */
export interface BarShape {
  readonly index: number;
  readonly size: number;
  readonly kind: (typeof BAR_KINDS)[number];
  readonly prefetchable: boolean;
}

export const BAR_COUNT = 6;

const IO = 0x1;
const TYPE_BITS = 0x6;
const MEMORY_64 = 0x4;
const PREFETCHABLE = 0x8;
const MEMORY_FLAG_BITS = 0xf;
const IO_FLAG_BITS = 0x3;
const FOUR_GIB = 2 ** 32;

/** The low register of a BAR that has no address yet: its type bits. The upper register of a pair is then 0. */
export function barRegisterValue(shape: BarShape): number {
  if (shape.kind === 'io') {
    return IO;
  }
  const width = shape.kind === 'memory64' ? MEMORY_64 : 0;
  return width | (shape.prefetchable ? PREFETCHABLE : 0);
}

/** The address bits a guest can write, which is what sizing reads back beside the type bits. */
export function barWriteMasks(shape: BarShape): { low: number; high: number } {
  const low = shape.size >= FOUR_GIB ? 0 : FOUR_GIB - shape.size;
  if (shape.kind !== 'memory64') {
    return { low, high: 0 };
  }
  const high = shape.size > FOUR_GIB ? FOUR_GIB - shape.size / FOUR_GIB : FOUR_GIB - 1;
  return { low, high };
}

/** The address that a BAR's registers hold; `high` counts for 64-bit BARs only. */
export function barAddress(shape: BarShape, low: number, high: number): bigint {
  if (shape.kind === 'io') {
    return BigInt((low & ~IO_FLAG_BITS) >>> 0);
  }
  const lower = BigInt((low & ~MEMORY_FLAG_BITS) >>> 0);
  return shape.kind === 'memory64' ? (BigInt(high) << 32n) | lower : lower;
}

/** The address that the six BAR registers of a function hold for one of its BARs. */
export function barAddressIn(registers: Uint8Array, shape: BarShape): bigint {
  const dword = (index: number): number => loadUint(registers, 4 * index, 4);
  const high = shape.kind === 'memory64' ? dword(shape.index + 1) : 0;
  return barAddress(shape, dword(shape.index), high);
}

/** What a BAR register's type bits say, whatever address is in it. */
export function barType(register: number): Pick<BarShape, 'kind' | 'prefetchable'> {
  if (register & IO) {
    return { kind: 'io', prefetchable: false };
  }
  return {
    kind: (register & TYPE_BITS) === MEMORY_64 ? 'memory64' : 'memory32',
    prefetchable: (register & PREFETCHABLE) !== 0,
  };
}

/** Throws unless the shapes can stand in one function's six registers. */
export function assertBarShapes(shapes: readonly BarShape[]): void {
  const taken = new Map<number, number>();
  for (const shape of shapes) {
    const registers = shape.kind === 'memory64' ? [shape.index, shape.index + 1] : [shape.index];
    for (const register of registers) {
      if (!Number.isInteger(register) || register < 0 || register >= BAR_COUNT) {
        throw new RangeError(`BAR ${shape.index} (${shape.kind}): a function has BARs 0 to 5 only`);
      }
      const other = taken.get(register);
      if (other !== undefined) {
        throw new RangeError(`BAR ${shape.index} (${shape.kind}) overlaps BAR ${other}`);
      }
      taken.set(register, shape.index);
    }
    assertSize(shape);
  }
}

function assertSize(shape: BarShape): void {
  const smallest = shape.kind === 'io' ? 4 : 16;
  const largest = shape.kind === 'memory64' ? 2 ** 52 : 2 ** 31;
  const isPowerOfTwo = Number.isInteger(Math.log2(shape.size));
  if (!isPowerOfTwo || shape.size < smallest || shape.size > largest) {
    throw new RangeError(
      `BAR ${shape.index} (${shape.kind}): a size of ${shape.size} bytes is not a power of two ` +
        `between ${smallest} and ${largest}`,
    );
  }
}
