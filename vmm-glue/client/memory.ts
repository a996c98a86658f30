// Memory that a VMM shares with a device: guest RAM in a memfd, and device regions mapped from the server's file.
// Both are plain Uint8Arrays; after `close()` they read as zeros and must not be used.

import { PAGE_BYTES } from '../../protocol/page.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { createMemfd, type Mapping, mapMemory, unmapMemory } from '../../protocol/unix/memory.ts';

/** Pages of x86-64. */

/** Guest RAM: `bytes` is the whole of it, `fd` the memfd to give to VfioUserClient.mapDma. */
export class GuestMemory implements Disposable {
  readonly fd: number;
  readonly length: number;
  readonly #mapping: Mapping;
  #closed = false;

  /** `length` in bytes, a multiple of 4096. Throws RangeError where it is none, and SyscallError. */
  constructor(length: number, name = 'guest-memory') {
    if (!Number.isSafeInteger(length) || length <= 0 || length % PAGE_BYTES !== 0) {
      throw new RangeError(
        `GuestMemory of ${length} bytes: memory is mapped in pages; give a multiple of ${PAGE_BYTES} below 2^53`,
      );
    }
    this.length = length;
    this.fd = createMemfd(name, length);
    try {
      this.#mapping = mapMemory({ fd: this.fd, offset: 0, length, write: true });
    } catch (error) {
      closeFd(this.fd);
      throw error;
    }
  }

  get bytes(): Uint8Array {
    return this.#mapping.bytes;
  }

  close(): void {
    if (!this.#closed) {
      this.#closed = true;
      unmapMemory(this.#mapping);
      closeFd(this.fd);
    }
  }

  /** `using` closes it at the end of its block. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** One mapped part of a device region; `offset` is where in the region it starts. */
export class MappedArea implements Disposable {
  readonly region: number;
  readonly offset: number;
  readonly length: number;
  readonly #mapping: Mapping;

  constructor(region: number, offset: number, mapping: Mapping) {
    this.region = region;
    this.offset = offset;
    this.length = mapping.length;
    this.#mapping = mapping;
  }

  get bytes(): Uint8Array {
    return this.#mapping.bytes;
  }

  close(): void {
    unmapMemory(this.#mapping);
  }

  /** `using` closes it at the end of its block. */
  [Symbol.dispose](): void {
    this.close();
  }
}
