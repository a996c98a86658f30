import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Segment } from '../../../../backend/devices/kit/guest-memory.ts';
import { prpSegments } from '../../../../backend/devices/nvme/prp.ts';
import { Status } from '../../../../backend/devices/nvme/spec/status.ts';

const PAGE = 4096;
const ENTRIES = PAGE / 8;

/** Lists in guest memory, by page address; everything else is not mapped. */
function memoryOf(pages: ReadonlyMap<bigint, DataView>) {
  return {
    read(address: bigint, into: Uint8Array): boolean {
      const offset = Number(address % BigInt(PAGE));
      const page = pages.get(address - BigInt(offset));
      if (page === undefined || offset + into.length > PAGE) {
        return false;
      }
      into.set(new Uint8Array(page.buffer, offset, into.length));
      return true;
    },
  };
}

/** A list of `entries`, chained over as many pages as it takes, that starts `skip` entries into its first page. */
function listOf(entries: readonly bigint[], skip: number) {
  const pages = new Map<bigint, DataView>();
  const addressOf = (page: number): bigint => BigInt(0x100_0000 + page * 2 * PAGE);
  let left = [...entries];
  for (let page = 0; left.length > 0; page++) {
    const first = page === 0 ? skip : 0;
    const room = ENTRIES - first;
    const isLast = left.length <= room;
    const here = isLast ? left : [...left.slice(0, room - 1), addressOf(page + 1)];
    left = isLast ? [] : left.slice(room - 1);
    const view = new DataView(new ArrayBuffer(PAGE));
    for (const [index, entry] of here.entries()) {
      view.setBigUint64((first + index) * 8, entry, true);
    }
    pages.set(addressOf(page), view);
  }
  return { memory: memoryOf(pages), list: addressOf(0) + BigInt(skip * 8) };
}

function total(segments: readonly Segment[]): number {
  return segments.reduce((sum, { length }) => sum + length, 0);
}

/** Every byte's address in turn, a page at a time: what joined and separate segments have in common. */
function pagesOf(segments: readonly Segment[]): bigint[] {
  return segments.flatMap(({ address, length }) => {
    const pages: bigint[] = [];
    for (let at = address; at < address + BigInt(length); ) {
      pages.push(at);
      at = (at / BigInt(PAGE) + 1n) * BigInt(PAGE);
    }
    return pages;
  });
}

const none = { read: () => false };

describe('PRPs', () => {
  it('of one page need no list, wherever in it they begin', () => {
    expect(prpSegments(0x1ffcn, 0xdeadn, 4, PAGE, none)).toEqual([{ address: 0x1ffcn, length: 4 }]);
    expect(prpSegments(0x1000n, 0n, PAGE, PAGE, none)).toEqual([
      { address: 0x1000n, length: PAGE },
    ]);
  });

  it('of two pages have the second in PRP 2; neighbours are joined', () => {
    expect(prpSegments(0x1ffcn, 0x8000n, 8, PAGE, none)).toEqual([
      { address: 0x1ffcn, length: 4 },
      { address: 0x8000n, length: 4 },
    ]);
    expect(prpSegments(0x1ffcn, 0x2000n, 8, PAGE, none)).toEqual([{ address: 0x1ffcn, length: 8 }]);
  });

  it('of more pages follow a list, from any entry of a page on, over page after page of it', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: PAGE / 4 - 1 }),
        fc.array(fc.bigInt({ min: 1n, max: (1n << 40n) - 1n }), { minLength: 2, maxLength: 1100 }),
        fc.integer({ min: 0, max: ENTRIES - 2 }),
        fc.integer({ min: 1, max: PAGE }),
        (start, frames, skip, last) => {
          const pages = frames.map((frame) => frame * BigInt(PAGE));
          const first = 0x7000n + BigInt(start * 4);
          const length = PAGE - start * 4 + (pages.length - 1) * PAGE + last;
          const { memory, list } = listOf(pages, skip);
          const found = prpSegments(first, list, length, PAGE, memory) as Segment[];
          expect(total(found)).toBe(length);
          expect(pagesOf(found)).toEqual([first, ...pages]);
        },
      ),
    );
  });

  it('never loop, and never cover more than was asked for, whatever the lists hold', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
        fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
        fc.integer({ min: 1, max: 128 * 1024 }),
        fc.array(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), { minLength: 1, maxLength: 8 }),
        fc.constantFrom(4096, 8192, 65_536),
        (prp1, prp2, length, values, pageBytes) => {
          let reads = 0;
          const memory = {
            read(_address: bigint, into: Uint8Array) {
              const view = new DataView(into.buffer);
              for (let at = 0; at < into.length; at += 8) {
                view.setBigUint64(at, values[(reads + at / 8) % values.length]! & ~0xfffn, true);
              }
              reads++;
              return true;
            },
          };
          const found = prpSegments(prp1, prp2, length, pageBytes, memory);
          expect(reads).toBeLessThanOrEqual(33);
          expect(typeof found === 'number' ? length : total(found)).toBe(length);
        },
      ),
    );
  });

  it.each<[string, bigint, bigint, number, Status]>([
    ['begins between dwords', 0x1002n, 0n, 4, Status.invalidPrpOffset],
    ['goes on inside a page', 0x1000n, 0x2004n, 8192, Status.invalidPrpOffset],
    ['has its list between entries', 0x1000n, 0x2004n, 3 * PAGE, Status.invalidPrpOffset],
    ['has a list that is not mapped', 0x1000n, 0x2008n, 3 * PAGE, Status.dataTransferError],
  ])('that %s is refused', (_, prp1, prp2, length, status) => {
    expect(prpSegments(prp1, prp2, length, PAGE, none)).toBe(status);
  });

  it('is refused where a page of the list, or one that it names, begins inside a page', () => {
    const crooked = listOf([0x5008n, 0x6000n], 0);
    expect(prpSegments(0x1000n, crooked.list, 3 * PAGE, PAGE, crooked.memory)).toBe(
      Status.invalidPrpOffset,
    );
    const last = listOf([0x5000n, 0x6000n, 0x7000n], ENTRIES - 1);
    const page = 0x100_0000n;
    const view = new DataView(new ArrayBuffer(PAGE));
    view.setBigUint64(PAGE - 8, page + BigInt(PAGE - 8), true);
    const loop = memoryOf(new Map([[page, view]]));
    expect(prpSegments(0x1000n, last.list, 4 * PAGE, PAGE, loop)).toBe(Status.invalidPrpOffset);
  });
});
