// Maps any part of a memory file, whatever the size of its pages: on hugetlbfs a mapping must begin and end with whole
// ones, which are 2 MiB or more, while guest RAM is cut at any 4 KiB. Not to be looked into: a mapping of a file that its
// owner shrinks ends this process. The kernel may be asked to copy or to pin what is there: it gives EFAULT then.
import { fstatSync } from 'node:fs';
import { PAGE_BYTES } from '../page.ts';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from './kernel-numbers.ts';
import { mmap, munmap } from './libc.ts';
import { check } from './syscall-error.ts';

export interface BlockMapping {
  /** Where the byte at the offset that was asked for is. */
  readonly address: bigint;
  /** @throws SyscallError: the file stays mapped. */
  unmap(): void;
}

/** The whole blocks around `length` bytes at `offset`; `before`: bytes of them that come before `offset`. */
export function blocksAround(
  offset: number,
  length: number,
  blockBytes: number,
): { start: number; length: number; before: number } {
  const isUsable = blockBytes > PAGE_BYTES && Number.isInteger(Math.log2(blockBytes));
  const block = isUsable ? blockBytes : PAGE_BYTES;
  const start = Math.floor(offset / block) * block;
  const end = Math.ceil((offset + length) / block) * block;
  return { start, length: end - start, before: offset - start };
}

/** Maps part of a file, shared, with the blocks that it touches. The fd may be closed afterwards. @throws SyscallError */
export function mapBlocks(request: {
  fd: number;
  offset: number;
  length: number;
  write: boolean;
}): BlockMapping {
  const { blksize } = fstatSync(request.fd);
  const { start, length, before } = blocksAround(request.offset, request.length, blksize);
  const protection = PROT_READ | (request.write ? PROT_WRITE : 0);
  const mapped = mmap(0n, length, protection, MAP_SHARED, request.fd, start);
  return {
    address: mapped + BigInt(before),
    unmap: () => {
      check('munmap', munmap(mapped, length));
    },
  };
}
