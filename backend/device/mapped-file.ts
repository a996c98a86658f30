// A file of guest memory in this process's memory, as a whole, for the kernel to copy to and from. Nobody looks into it: its
// owner may shrink the file. Mapped when it is first wanted, which most devices never do.
import { type BlockMapping, mapBlocks } from '../../protocol/unix/block-mapping.ts';
import { F_GETFL, O_ACCMODE, O_RDONLY } from '../../protocol/unix/kernel-numbers.ts';
import { fcntl } from '../../protocol/unix/libc.ts';
import { fileSize } from '../../protocol/unix/memory.ts';
import { SyscallError } from '../../protocol/unix/syscall-error.ts';

export class MappedFile {
  readonly #fd: number;
  #mapping: BlockMapping | undefined;
  #bytes: number | undefined;

  /** The fd stays its owner's. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Where `length` bytes at `offset` are; undefined where they are not mapped: the file has grown since, or cannot be. */
  placeOf(offset: number, length: number): bigint | undefined {
    this.#bytes ??= this.#map();
    return offset + length <= this.#bytes ? this.#mapping!.address + BigInt(offset) : undefined;
  }

  unmap(): void {
    this.#mapping?.unmap();
    this.#mapping = undefined;
    this.#bytes = 0;
  }

  /** How many bytes of it are mapped now. */
  #map(): number {
    const length = fileSize(this.#fd);
    const write = (fcntl(this.#fd, F_GETFL, 0) & O_ACCMODE) !== O_RDONLY;
    try {
      this.#mapping = mapBlocks({ fd: this.#fd, offset: 0, length, write });
      return length;
    } catch (error) {
      if (error instanceof SyscallError) {
        return 0;
      }
      throw error;
    }
  }
}
