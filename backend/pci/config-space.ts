// A function's config space as a set of owners: every byte belongs to at most one of them (a register table, a patch
// over hardware, or hardware itself), and bytes without one read 0 and ignore writes. Any access is split into
// naturally aligned 1-, 2- and 4-byte pieces that each stay within one owner. Used by both kinds of function.

import { allOnes, loadUint, storeUint } from '../../protocol/little-endian.ts';
import { describeRange, OwnerMap, UNOWNED } from './owner-map.ts';
import type { Change, RegisterBlock } from './register-block.ts';
import type { RegisterTable } from './registers.ts';

/** A range of config space that one party answers; the offsets of `read` and `write` count from its start. */
export interface ConfigOwner {
  readonly offset: number;
  readonly length: number;
  read(offset: number, length: 1 | 2 | 4): number;
  write(offset: number, length: 1 | 2 | 4, value: number): void;
}

/** Replaces the bits of `mask` by those of `value` in `length` bytes at `offset`, from the owner's start. */
export interface ConfigPatch {
  readonly offset: number;
  readonly length: 1 | 2 | 4;
  readonly mask: number;
  readonly value: number;
}

export class ConfigSpace {
  readonly size: number;
  readonly #owners: readonly ConfigOwner[];
  readonly #map: OwnerMap;

  /** `size` is 256 or 4096 bytes; owners that overlap or leave the space throw. `map`: of owners at the same ranges. */
  constructor(size: number, owners: readonly ConfigOwner[], map = new OwnerMap(size, owners)) {
    this.size = size;
    this.#owners = owners;
    this.#map = map;
  }

  /** Reads `length` bytes (1 or more) into the start of `into`; outside the space throws. */
  read(offset: number, length: number, into: Uint8Array): void {
    this.#checkRange(offset, length);
    for (let at = offset; at < offset + length; ) {
      const piece = this.#pieceAt(at, offset + length - at);
      const owner = this.#ownerAt(at);
      const value = owner === undefined ? 0 : owner.read(at - owner.offset, piece);
      storeUint(into, at - offset, piece, value);
      at += piece;
    }
  }

  /** Writes all of `bytes` at `offset`, lowest first; outside the space throws. */
  write(offset: number, bytes: Uint8Array): void {
    this.#checkRange(offset, bytes.length);
    for (let at = offset; at < offset + bytes.length; ) {
      const piece = this.#pieceAt(at, offset + bytes.length - at);
      const owner = this.#ownerAt(at);
      if (owner !== undefined) {
        owner.write(at - owner.offset, piece, loadUint(bytes, at - offset, piece));
      }
      at += piece;
    }
  }

  #ownerAt(at: number): ConfigOwner | undefined {
    const index = this.#map.ownerAt(at);
    return index === UNOWNED ? undefined : this.#owners[index];
  }

  #pieceAt(at: number, remaining: number): 1 | 2 | 4 {
    if (at % 4 === 0 && remaining >= 4 && this.#map.isInOneRange(at, 4)) {
      return 4;
    }
    return at % 2 === 0 && remaining >= 2 && this.#map.isInOneRange(at, 2) ? 2 : 1;
  }

  #checkRange(offset: number, length: number): void {
    if (offset < 0 || length < 1 || offset + length > this.size) {
      throw new RangeError(
        `${length} bytes at 0x${offset.toString(16)} lie outside a config space of ${this.size} bytes`,
      );
    }
  }
}

/** A register block at its place in config space. */
export class TableOwner<T extends RegisterTable> implements ConfigOwner {
  readonly offset: number;
  readonly length: number;
  readonly #block: RegisterBlock<T>;
  readonly #onChange: ((changes: Change<T>[]) => void) | undefined;

  /** `onChange` hears of every write that touched a writable bit. */
  constructor(offset: number, block: RegisterBlock<T>, onChange?: (changes: Change<T>[]) => void) {
    this.offset = offset;
    this.length = block.length;
    this.#block = block;
    this.#onChange = onChange;
  }

  read(offset: number, length: 1 | 2 | 4): number {
    return this.#block.read(offset, length);
  }

  write(offset: number, length: 1 | 2 | 4, value: number): void {
    const changes = this.#block.write(offset, length, value);
    if (changes.length > 0) {
      this.#onChange?.(changes);
    }
  }

  reset(): void {
    this.#block.reset();
  }
}

/**
 * Lays patches over a hardware owner. A write never reaches patched bits: they are written as hardware has them, and
 * a write to patched bits alone is dropped. Do not patch rw1c bits: writing them back as they are would clear them.
 */
export function patchOwner(hardware: ConfigOwner, patches: readonly ConfigPatch[]): ConfigOwner {
  const masks = new Uint8Array(hardware.length);
  const values = new Uint8Array(hardware.length);
  for (const patch of patches) {
    if (patch.offset < 0 || patch.offset + patch.length > hardware.length) {
      throw new RangeError(
        `a patch of ${patch.length} bytes at 0x${patch.offset.toString(16)} lies outside ${describeRange(hardware)}`,
      );
    }
    const { offset, length, mask, value } = patch;
    storeUint(masks, offset, length, loadUint(masks, offset, length) | mask);
    storeUint(values, offset, length, (loadUint(values, offset, length) & ~mask) | (value & mask));
  }
  return {
    offset: hardware.offset,
    length: hardware.length,
    read: (at, length) => {
      const mask = loadUint(masks, at, length);
      const kept = mask === allOnes(length) ? 0 : hardware.read(at, length) & ~mask;
      return (kept | loadUint(values, at, length)) >>> 0;
    },
    write: (at, length, value) => {
      const mask = loadUint(masks, at, length);
      if (mask === allOnes(length)) {
        return;
      }
      const patched = mask === 0 ? 0 : hardware.read(at, length) & mask;
      hardware.write(at, length, ((value & ~mask) | patched) >>> 0);
    },
  };
}
