import { describe, expect, it } from 'vitest';
import { PinnedMemory } from '../../../../../backend/devices/vfio/dma/pinned-memory.ts';
import { Errno } from '../../../../../protocol/errno.ts';

const MIB = 1n << 20n;

/** A window into file `fd`; two fds below and above 100 are of the same file. */
function windowOf(fd: number, size: bigint, fileOffset = 0n) {
  return { address: 0x1000n, size, fd, fileOffset, readable: true, writable: true };
}

function pinned(most: bigint): PinnedMemory {
  return new PinnedMemory(most, (fd) => `file ${fd % 100}`);
}

describe('memory that is pinned', () => {
  it('is taken up to the limit, and not a byte beyond', () => {
    const memory = pinned(3n * MIB);
    memory.add(windowOf(1, 2n * MIB));
    expect(() => memory.add(windowOf(2, MIB + 1n))).toThrow(
      expect.objectContaining({
        errno: Errno.ENOMEM,
        message: expect.stringMatching(
          /4 MiB would be pinned .* at most 3 MiB .*--max-guest-memory/,
        ),
      }),
    );
    memory.add(windowOf(2, MIB));
    expect(memory.bytes).toBe(3n * MIB);
  });

  it('is counted once where several containers have the same of one file', () => {
    const memory = pinned(2n * MIB);
    memory.add(windowOf(1, 2n * MIB));
    memory.add(windowOf(101, 2n * MIB));
    expect(memory.bytes).toBe(2n * MIB);
  });

  it.each([
    ['another file', windowOf(2, MIB)],
    ['another part of the file', windowOf(1, MIB, MIB)],
    ['a smaller part of it', windowOf(1, MIB / 2n)],
  ])('is counted for itself where it is %s', (_, window) => {
    const memory = pinned(8n * MIB);
    memory.add(windowOf(1, MIB));
    memory.add(window);
    expect(memory.bytes).toBe(MIB + window.size);
  });

  it('is given back with its last user', () => {
    const memory = pinned(MIB);
    const [first, second] = [memory.add(windowOf(1, MIB)), memory.add(windowOf(101, MIB))];
    first();
    expect(() => memory.add(windowOf(2, MIB))).toThrow();
    second();
    expect(memory.bytes).toBe(0n);
    memory.add(windowOf(2, MIB));
  });
});
