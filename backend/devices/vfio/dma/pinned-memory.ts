// How much memory a VMM makes this process pin. A backend that runs as root has no RLIMIT_MEMLOCK to stop at, so it stops by
// itself: pages that the kernel pins cannot be swapped, and nobody gets them back while the VM lives. Called by VfioContainer.
import { Errno } from '../../../../protocol/errno.ts';
import { type DmaWindow, HostError } from '../../../device/physical-device.ts';

interface Piece {
  readonly bytes: bigint;
  /** Containers that have it. */
  users: number;
}

export class PinnedMemory {
  readonly #most: bigint;
  readonly #identityOf: (fd: number) => string;
  /** By file, offset and size: what several containers map of one file alike is pinned once. */
  readonly #pieces = new Map<string, Piece>();
  #bytes = 0n;

  /** `most` in bytes, for all containers together. */
  constructor(most: bigint, identityOf: (fd: number) => string) {
    this.#most = most;
    this.#identityOf = identityOf;
  }

  /** Bytes that are pinned. */
  get bytes(): bigint {
    return this.#bytes;
  }

  /** Counts a window; gives what takes it off again, which is to be called once. @throws HostError ENOMEM beyond the limit. */
  add({ fd, fileOffset, size, address }: DmaWindow): () => void {
    const key = `${this.#identityOf(fd)}:${fileOffset}:${size}`;
    const piece = this.#pieces.get(key) ?? { bytes: size, users: 0 };
    if (piece.users === 0) {
      if (this.#bytes + size > this.#most) {
        throw new HostError(
          'VFIO_IOMMU_MAP_DMA',
          Errno.ENOMEM,
          `guest memory at 0x${address.toString(16)}`,
          `${mebibytes(this.#bytes + size)} would be pinned for this VM: at most ${mebibytes(this.#most)} may be`,
          'give the VM less memory, or raise --max-guest-memory',
        );
      }
      this.#bytes += size;
      this.#pieces.set(key, piece);
    }
    piece.users++;
    return () => this.#remove(key, piece);
  }

  #remove(key: string, piece: Piece): void {
    piece.users--;
    if (piece.users === 0) {
      this.#pieces.delete(key);
      this.#bytes -= piece.bytes;
    }
  }
}

/** Rounded up. */
function mebibytes(bytes: bigint): string {
  return `${(bytes + 0xf_ffffn) >> 20n} MiB`;
}
