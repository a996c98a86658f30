// Unsigned numbers of 1 to 4 bytes, lowest byte first: the order of config space and of the wire. Pure.

/** The number in `length` bytes at `offset`; bytes beyond the end count as 0. */
export function loadUint(bytes: Uint8Array, offset: number, length: number): number {
  let value = 0;
  for (let lane = 0; lane < length; lane++) {
    value |= bytes[offset + lane]! << (8 * lane);
  }
  return value >>> 0;
}

/** Puts the low `length` bytes of `value` at `offset`; bytes beyond the end are dropped. */
export function storeUint(bytes: Uint8Array, offset: number, length: number, value: number): void {
  for (let lane = 0; lane < length; lane++) {
    bytes[offset + lane] = value >>> (8 * lane);
  }
}

/** What a bus without an answer gives for `length` bytes. */
export function allOnes(length: number): number {
  return length >= 4 ? 0xffff_ffff : 2 ** (8 * length) - 1;
}
