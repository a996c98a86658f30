import { describe, expect, it } from 'vitest';
import { blocksAround, mapBlocks } from '../../../../protocol/unix/block-mapping.ts';
import { closeFd, viewMemory } from '../../../../protocol/unix/libc.ts';
import { createMemfd, writeAt } from '../../../../protocol/unix/memory.ts';

const MIB = 1 << 20;

describe('the whole blocks around a part of a file', () => {
  it.each([
    ['RAM below the VGA window', 0, 0xa0000, { start: 0, length: 2 * MIB, before: 0 }],
    ['from within a block', 0x100000, 2 * MIB, { start: 0, length: 4 * MIB, before: MIB }],
    ['a block, exactly', 2 * MIB, 2 * MIB, { start: 2 * MIB, length: 2 * MIB, before: 0 }],
    [
      'three bytes over a border',
      2 * MIB - 1,
      3,
      { start: 0, length: 4 * MIB, before: 2 * MIB - 1 },
    ],
  ])('%s', (_, offset, length, blocks) => {
    expect(blocksAround(offset, length, 2 * MIB)).toEqual(blocks);
  });

  it('of 1 GiB, beyond 2^32', () => {
    const [gib, offset] = [1024 * MIB, 5 * 1024 * MIB + 4096];
    expect(blocksAround(offset, 4096, gib)).toEqual({ start: 5 * gib, length: gib, before: 4096 });
  });

  it.each([0, 512, 4096, 4097, 3 * MIB])('are pages where a block is said to be %i', (block) => {
    expect(blocksAround(4099, 1, block)).toEqual({ start: 4096, length: 4096, before: 3 });
  });
});

describe('a mapping', () => {
  it('begins at the byte that was asked for', () => {
    const fd = createMemfd('blocks', 4 * 4096);
    writeAt(fd, Uint8Array.of(1, 2, 3), 4097);
    const mapping = mapBlocks({ fd, offset: 4097, length: 3, write: false });
    closeFd(fd);
    expect([...viewMemory(mapping.address, 3)]).toEqual([1, 2, 3]);
    mapping.unmap();
  });

  it('of what is no file in memory is refused', () => {
    expect(() => mapBlocks({ fd: 0x7fff_ffff, offset: 0, length: 1, write: false })).toThrow();
  });
});
