import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DmaWindows } from '../../../backend/device/dma-windows.ts';
import {
  type DmaWindow,
  type GuestRange,
  NO_FILE,
} from '../../../backend/device/physical-device.ts';
import { createEventFd } from '../../../protocol/unix/eventfd.ts';
import { createMemfd, dupFd } from '../../../protocol/unix/memory.ts';
import { openFds } from '../protocol/unix/open-fds.ts';

const PAGE = 4096;
const PAGE_SIZE = BigInt(PAGE);

let before: number;
let windows: DmaWindows;
let memory: number;

beforeEach(() => {
  before = openFds();
  windows = new DmaWindows();
  memory = createMemfd('guest', 16 * PAGE, { resizable: true });
});
afterEach(() => {
  windows.clear();
  closeSync(memory);
  expect(openFds()).toBe(before);
});

/** `pages` pages at guest page `at`, showing the file from page `from`; with an fd of its own, as a message brings it. */
function windowAt(at: number, pages: number, from = 0, change: Partial<DmaWindow> = {}): DmaWindow {
  return {
    address: BigInt(at * PAGE),
    size: BigInt(pages) * PAGE_SIZE,
    fd: change.fd ?? dupFd(memory),
    fileOffset: BigInt(from * PAGE),
    readable: true,
    writable: true,
    ...change,
  };
}

function addresses(list: readonly DmaWindow[]): number[] {
  return list.map(({ address }) => Number(address) / PAGE);
}

function insidePages(at: number, pages: number, most = 100): number[] {
  return addresses(windows.lastInside(BigInt(at * PAGE), BigInt(pages) * PAGE_SIZE, most));
}

function readAt(address: number, length: number): Uint8Array | undefined {
  const into = new Uint8Array(length);
  return windows.read(BigInt(address), into) ? into : undefined;
}

describe('adding windows', () => {
  it('keeps them in order of address, however they come', () => {
    for (const at of [8, 2, 5, 0]) {
      windows.add(windowAt(at, 1));
    }
    expect(addresses(windows.all)).toEqual([0, 2, 5, 8]);
    expect(windows.size).toBe(4);
  });

  it.each([
    ['the same range', 4, 4],
    ['one that starts inside', 6, 4],
    ['one that ends inside', 2, 3],
    ['one that lies within', 5, 1],
    ['one that spans it', 0, 16],
  ])('answers %s with EEXIST', (_, at, pages) => {
    windows.add(windowAt(4, 4));
    expect(() => windows.add(windowAt(at, pages))).toThrow(
      expect.objectContaining({ code: 'EEXIST' }),
    );
    expect(windows.size).toBe(1);
  });

  it('takes neighbours that touch', () => {
    windows.add(windowAt(4, 4));
    windows.add(windowAt(0, 4));
    windows.add(windowAt(8, 1));
    expect(windows.size).toBe(3);
  });

  it.each<[string, Partial<DmaWindow>]>([
    ['of no size', { size: 0n }],
    ['that wraps around', { address: (1n << 64n) - PAGE_SIZE, size: 2n * PAGE_SIZE }],
    ['past what a file offset can be', { fileOffset: 1n << 53n }],
  ])('answers one %s with EINVAL', (_, change) => {
    expect(() => windows.add(windowAt(0, 1, 0, change))).toThrow(
      expect.objectContaining({ code: 'EINVAL' }),
    );
    expect(windows.size).toBe(0);
  });

  it('takes one that ends with the address space', () => {
    windows.add(windowAt(0, 1, 0, { address: (1n << 64n) - PAGE_SIZE }));
    const into = new Uint8Array(4);
    expect(windows.read((1n << 64n) - 4n, into)).toBe(true);
    expect(windows.read((1n << 64n) - 2n, into)).toBe(false);
  });

  it('answers one too many with ENOSPC', () => {
    windows = new DmaWindows(2);
    windows.add(windowAt(0, 1));
    windows.add(windowAt(1, 1));
    expect(() => windows.add(windowAt(2, 1))).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
  });

  it('closes the fd of a window that it refuses', () => {
    windows.add(windowAt(0, 4));
    const open = openFds();
    expect(() => windows.add(windowAt(2, 4))).toThrow();
    expect(openFds()).toBe(open);
  });
});

describe('the files behind windows', () => {
  it('cost one fd each, however many windows show them', () => {
    const open = openFds();
    for (let page = 0; page < 16; page++) {
      windows.add(windowAt(page, 1, page));
    }
    expect(openFds()).toBe(open + 1);
    const second = createMemfd('second', PAGE);
    windows.add(windowAt(100, 1, 0, { fd: second }));
    expect(openFds()).toBe(open + 2);
  });

  it('are closed with their last window', () => {
    const open = openFds();
    const first = windows.add(windowAt(0, 1));
    const second = windows.add(windowAt(1, 1));
    windows.remove([first]);
    expect(openFds()).toBe(open + 1);
    expect(readAt(PAGE, 4)).toBeDefined();
    windows.remove([second]);
    expect(openFds()).toBe(open);
  });

  it('are closed once, also when a window is removed twice', () => {
    const window = windows.add(windowAt(0, 1));
    windows.add(windowAt(1, 1));
    expect(windows.remove([window])).toBe(1);
    expect(windows.remove([window])).toBe(0);
    expect(readAt(PAGE, 4)).toBeDefined();
  });

  it('are kept apart by what they were opened for: a read-only fd cannot stand in for a writable one', () => {
    const path = `/proc/self/fd/${memory}`;
    windows.add(windowAt(0, 1, 0, { fd: openSync(path, 'r') }));
    windows.add(windowAt(1, 1, 1, { fd: openSync(path, 'r+') }));
    expect(windows.write(BigInt(PAGE), Uint8Array.of(1))).toBe(true);
    expect(windows.write(0n, Uint8Array.of(1))).toBe(false);
  });

  it('need not be files: what cannot be read at an offset is as good as unmapped', () => {
    windows.add(windowAt(0, 1, 0, { fd: createEventFd() }));
    expect(readAt(0, 8)).toBeUndefined();
  });
});

describe('unmapping', () => {
  beforeEach(() => {
    for (const at of [0, 1, 4]) {
      windows.add(windowAt(at, 1, at));
    }
  });

  it.each([
    ['one window', 1, 1, [1]],
    ['several, with gaps between them', 0, 16, [0, 1, 4]],
    ['none where nothing is mapped', 2, 2, []],
    ['none above the last', 5, 100, []],
    ['none in a range of no pages', 1, 0, []],
  ])('finds %s', (_, at, pages, found) => {
    expect(insidePages(at, pages)).toEqual(found);
  });

  it('finds all of them when everything is unmapped', () => {
    expect(addresses(windows.lastInside(0n, 1n << 64n, 100))).toEqual([0, 1, 4]);
  });

  it('finds the last ones first, and takes a run of them away at once, but for those that have gone before', () => {
    expect(insidePages(0, 16, 2)).toEqual([1, 4]);
    const run = windows.lastInside(0n, 1n << 64n, 3);
    windows.remove([run[1]!]);
    expect(windows.remove(run)).toBe(2);
    expect(windows.size).toBe(0);
    expect(windows.remove([])).toBe(0);
  });

  it.each([
    ['cut at its start', 8, 2],
    ['cut at its end', 10, 4],
    ['split in two', 9, 2],
  ])('answers a window that would be %s with EINVAL, and changes nothing', (_, at, pages) => {
    windows.add(windowAt(8, 4, 8));
    expect(() => insidePages(at, pages, 1)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(windows.size).toBe(4);
  });

  it('takes windows away in any order, and never one that was mapped anew at the same place', () => {
    const [first, second, third] = windows.all.slice();
    expect(windows.remove([second!])).toBe(1);
    const anew = windows.add(windowAt(1, 1, 7));
    expect(windows.remove([second!])).toBe(0);
    expect(windows.all).toEqual([first, anew, third]);
    expect(windows.remove([third!])).toBe(1);
    expect(windows.remove([first!])).toBe(1);
    expect(windows.all).toEqual([anew]);
  });

  it('leaves windows where they are until they are removed', () => {
    const found = windows.lastInside(0n, PAGE_SIZE, 1);
    expect(readAt(0, 4)).toBeDefined();
    windows.remove(found);
    expect(readAt(0, 4)).toBeUndefined();
  });
});

describe('copying guest memory', () => {
  it('goes through the window’s offset into the file', () => {
    windows.add(windowAt(100, 2, 3));
    writeSync(memory, Uint8Array.of(1, 2, 3, 4), 0, 4, 3 * PAGE + 16);
    expect(readAt(100 * PAGE + 16, 4)).toEqual(Uint8Array.of(1, 2, 3, 4));
    expect(windows.write(BigInt(101 * PAGE), Uint8Array.of(9, 8))).toBe(true);
    expect(readFileSync(`/proc/self/fd/${memory}`).subarray(4 * PAGE, 4 * PAGE + 2)).toEqual(
      Buffer.of(9, 8),
    );
  });

  it('crosses from one window into the next', () => {
    windows.add(windowAt(0, 1, 7));
    windows.add(windowAt(1, 1, 2));
    const bytes = Uint8Array.from({ length: 64 }, (_, i) => i);
    expect(windows.write(BigInt(PAGE - 32), bytes)).toBe(true);
    expect(readAt(PAGE - 32, 64)).toEqual(bytes);
  });

  it.each([
    ['before the first window', PAGE - 2],
    ['past the end of a window', 3 * PAGE - 2],
    ['in a gap', 4 * PAGE],
    ['behind the last', 100 * PAGE],
  ])('fails %s', (_, address) => {
    windows.add(windowAt(1, 2));
    windows.add(windowAt(6, 1));
    expect(readAt(address, 4)).toBeUndefined();
    expect(windows.write(BigInt(address), new Uint8Array(4))).toBe(false);
  });

  it('keeps to what the client allowed', () => {
    windows.add(windowAt(0, 1, 0, { writable: false }));
    windows.add(windowAt(1, 1, 1, { readable: false }));
    expect(windows.write(0n, Uint8Array.of(1))).toBe(false);
    expect(readAt(0, 1)).toBeDefined();
    expect(windows.write(PAGE_SIZE, Uint8Array.of(1))).toBe(true);
    expect(readAt(PAGE, 1)).toBeUndefined();
  });

  it('fails where there is no file behind the range', () => {
    windows.add(windowAt(0, 1, 0, { fd: NO_FILE }));
    expect(readAt(0, 4)).toBeUndefined();
  });

  it('fails, and goes on living, when the peer has shrunk its file', () => {
    windows.add(windowAt(0, 4));
    ftruncateSync(memory, PAGE);
    expect(readAt(PAGE, 4)).toBeUndefined();
    expect(readAt(PAGE - 2, 4)).toBeUndefined();
    expect(readAt(0, 4)).toBeDefined();
  });
});

describe('copying between guest memory and another file', () => {
  let file: number;
  const content = Uint8Array.from({ length: 2 * PAGE }, (_, index) => index * 7 + (index >> 8));

  beforeEach(() => {
    file = createMemfd('blocks', 4 * PAGE);
    writeSync(file, content, 0, content.length, PAGE);
  });
  afterEach(() => {
    closeSync(file);
  });

  function range(address: number, length: number): GuestRange {
    return { address: BigInt(address), length };
  }

  function fill(...ranges: GuestRange[]): boolean | undefined {
    return windows.moveFile({ fd: file, offset: PAGE }, ranges, 'fromFile');
  }

  it('fills the ranges in order, across windows, and writes them out again', () => {
    windows.add(windowAt(0, 1, 7));
    windows.add(windowAt(1, 4, 2));
    const ranges = [range(3 * PAGE, PAGE), range(PAGE - 1024, 2048), range(4 * PAGE + 8, 2048)];
    expect(fill(...ranges)).toBe(true);
    expect(readAt(3 * PAGE, PAGE)).toEqual(content.subarray(0, PAGE));
    expect(readAt(PAGE - 1024, 2048)).toEqual(content.subarray(PAGE, PAGE + 2048));
    expect(readAt(4 * PAGE + 8, 2048)).toEqual(content.subarray(PAGE + 2048));
    expect(windows.moveFile({ fd: file, offset: 0 }, ranges, 'toFile')).toBe(true);
    expect(readFileSync(`/proc/self/fd/${file}`).subarray(0, 2 * PAGE)).toEqual(
      Buffer.from(content),
    );
  });

  it('keeps to what the client mapped and allowed, and copies nothing then', () => {
    windows.add(windowAt(0, 1, 0, { writable: false }));
    windows.add(windowAt(1, 1, 1, { readable: false }));
    const place = { fd: file, offset: 0 };
    expect(fill(range(PAGE, 8), range(0, 8))).toBe(false);
    expect(windows.moveFile(place, [range(PAGE, 8)], 'toFile')).toBe(false);
    expect(fill(range(2 * PAGE - 4, 8))).toBe(false);
    expect(readFileSync(`/proc/self/fd/${memory}`)).toEqual(Buffer.alloc(16 * PAGE));
    expect(fill(range(PAGE, 8))).toBe(true);
    expect(windows.moveFile(place, [range(0, 8)], 'toFile')).toBe(true);
  });

  it('leaves to others what it cannot do, and lives on when the peer has shrunk its file', () => {
    windows.add(windowAt(0, 16));
    expect(fill(range(0, 2 * PAGE))).toBe(true);
    ftruncateSync(memory, PAGE);
    expect(fill(range(0, 2 * PAGE))).toBeUndefined();
    expect(fill(range(2 * PAGE, 8))).toBeUndefined();
    expect(fill(range(8, 8))).toBe(true);
  });

  it('leaves to others what a file has grown by since', () => {
    ftruncateSync(memory, PAGE);
    windows.add(windowAt(0, 16));
    expect(fill(range(0, 8))).toBe(true);
    ftruncateSync(memory, 16 * PAGE);
    expect(fill(range(PAGE, 8))).toBeUndefined();
  });

  it('leaves to others what ends with the other file', () => {
    windows.add(windowAt(0, 16));
    expect(fill(range(0, 4 * PAGE))).toBeUndefined();
  });

  it('leaves to others more pieces than the kernel takes', () => {
    windows.add(windowAt(0, 16));
    const pieces = Array.from({ length: 1025 }, (_, index) => range(index * 8, 1));
    expect(fill(...pieces)).toBeUndefined();
    expect(fill(...pieces.slice(1))).toBe(true);
  });

  it('leaves to others more files than a guest has, because mappings are scarce', () => {
    for (let at = 0; at < 17; at++) {
      windows.add(windowAt(at, 1, 0, { fd: createMemfd(`file${at}`, PAGE) }));
    }
    expect(fill(range(15 * PAGE, 8))).toBe(true);
    expect(fill(range(16 * PAGE, 8))).toBeUndefined();
  });

  it('has the memory mapped as long as a window shows it', () => {
    const [first, second] = [windows.add(windowAt(0, 1)), windows.add(windowAt(1, 1, 1))];
    const mappings = () => readFileSync('/proc/self/maps', 'latin1').match(/memfd:guest /g) ?? [];
    expect(mappings()).toHaveLength(0);
    fill(range(0, 8));
    expect(mappings()).toHaveLength(1);
    windows.remove([first]);
    expect(mappings()).toHaveLength(1);
    windows.remove([second]);
    expect(mappings()).toHaveLength(0);
    windows.add(windowAt(0, 1));
    fill(range(0, 8));
    windows.clear();
    expect(mappings()).toHaveLength(0);
  });
});
