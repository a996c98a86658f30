// Which of the owners of a config space has which byte (config-space.ts): alike for all functions of one kind.

/** Bytes from `offset` on. */
export interface OwnedRange {
  readonly offset: number;
  readonly length: number;
}

/** Of a byte that nobody has. */
export const UNOWNED = -1;

export class OwnerMap {
  readonly #ownerAt: Int16Array;

  /** @throws RangeError for ranges that overlap, or leave a space of `size` bytes */
  constructor(size: number, ranges: readonly OwnedRange[]) {
    this.#ownerAt = new Int16Array(size).fill(UNOWNED);
    for (const [index, range] of ranges.entries()) {
      const end = range.offset + range.length;
      if (range.offset < 0 || end > size) {
        throw new RangeError(
          `${describeRange(range)} lies outside a config space of ${size} bytes`,
        );
      }
      const taken = this.#ownerAt.subarray(range.offset, end).find((owner) => owner !== UNOWNED);
      if (taken !== undefined) {
        throw new RangeError(`${describeRange(range)} overlaps ${describeRange(ranges[taken]!)}`);
      }
      this.#ownerAt.fill(index, range.offset, end);
    }
  }

  /** The index of the range that has the byte at `offset`, or UNOWNED. */
  ownerAt(offset: number): number {
    return this.#ownerAt[offset]!;
  }

  /** Whether all of these bytes are in one range, or in none. */
  isInOneRange(offset: number, length: number): boolean {
    const owner = this.#ownerAt[offset];
    for (let at = offset + 1; at < offset + length; at++) {
      if (this.#ownerAt[at] !== owner) {
        return false;
      }
    }
    return true;
  }
}

/** For messages. */
export function describeRange({ offset, length }: OwnedRange): string {
  const end = offset + length - 1;
  return `config range 0x${offset.toString(16)}..0x${end.toString(16)}`;
}
