// Places in this process's memory between which and a file the kernel copies in one call. Memory of a file that its owner may
// shrink can be among them: the kernel gives EFAULT, or moves less, where looking at it would end this process.
import { ErrnoNumber, preadv, pwritev } from './libc.ts';

/** What the kernel takes at once: IOV_MAX of limits.h. */
const MOST_PLACES = 1024;
/** An iovec: an address and a length, 64 bits each. */
const WORDS = 2;

export class IoVector {
  readonly #words = new BigUint64Array(MOST_PLACES * WORDS);
  readonly #bytes = new Uint8Array(this.#words.buffer);
  #count = 0;
  #length = 0;

  /** Of all places together, in bytes. */
  get length(): number {
    return this.#length;
  }

  clear(): void {
    this.#count = 0;
    this.#length = 0;
  }

  /** The next place; false where the kernel takes no more of them at once. */
  add(address: bigint, length: number): boolean {
    if (this.#count === MOST_PLACES) {
      return false;
    }
    this.#words[this.#count * WORDS] = address;
    this.#words[this.#count * WORDS + 1] = BigInt(length);
    this.#count++;
    this.#length += length;
    return true;
  }

  /** Fills the places from a file: bytes moved, fewer where the file or the memory ends, or -errno. */
  fillFrom(fd: number, offset: number): number {
    return this.#move(preadv, fd, offset);
  }

  /** Writes what is at the places to a file: bytes moved, or -errno. */
  writeTo(fd: number, offset: number): number {
    return this.#move(pwritev, fd, offset);
  }

  #move(call: typeof preadv, fd: number, offset: number): number {
    for (;;) {
      const result = call(fd, this.#bytes, this.#count, offset);
      if (result !== -ErrnoNumber.EINTR) {
        return result;
      }
    }
  }
}
