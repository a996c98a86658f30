// Guest memory as one session gave it: windows of bus addresses onto files, by DMA_MAP and DMA_UNMAP.
// Copies go through pread and pwrite, because looking into a mapping of a file that its owner shrinks kills the process;
// between such a mapping and another file the kernel copies.
// One fd is kept per file, however many windows show it: a guest with a virtual IOMMU sends an fd with each 4 KiB.

import { WireError } from '../../protocol/errno.ts';
import { IoVector } from '../../protocol/unix/io-vector.ts';
import { F_GETFL, O_ACCMODE } from '../../protocol/unix/kernel-numbers.ts';
import { closeFd, fcntl } from '../../protocol/unix/libc.ts';
import { fileIdentity, readAt, writeAt } from '../../protocol/unix/memory.ts';
import { MappedFile } from './mapped-file.ts';
import {
  type DmaWindow,
  type FileDirection,
  type FilePlace,
  type GuestRange,
  NO_FILE,
} from './physical-device.ts';

interface SharedFile {
  readonly fd: number;
  readonly identity: string;
  readonly mapped: MappedFile | undefined;
  users: number;
}

/** Guests have a file or two; all clients together must leave this process mappings enough. */
const MOST_MAPPED_FILES = 16;

/** Of this thread's: filled anew for each copy. */
const places = new IoVector();

export class DmaWindows {
  readonly #maximum: number;
  /** Sorted by address, never overlapping. */
  readonly #windows: DmaWindow[] = [];
  readonly #files = new Map<string, SharedFile>();
  readonly #fileByFd = new Map<number, SharedFile>();
  /** Where a window was looked up last. */
  #asked = 0;

  constructor(maximum = 65_535) {
    this.#maximum = maximum;
  }

  get size(): number {
    return this.#windows.length;
  }

  /** Whether any window shows a file, so that the memory behind it can be reached. */
  get hasFiles(): boolean {
    return this.#files.size > 0;
  }

  get all(): readonly DmaWindow[] {
    return this.#windows;
  }

  /**
   * Adds a window and takes over its fd, which is closed where it is not needed, or where the window is refused.
   * EINVAL: empty, or past the end of the address space; EEXIST: overlaps; ENOSPC: too many.
   */
  add(window: DmaWindow): DmaWindow {
    try {
      return this.#add(window);
    } catch (error) {
      if (window.fd !== NO_FILE && !this.#fileByFd.has(window.fd)) {
        closeFd(window.fd);
      }
      throw error;
    }
  }

  #add(window: DmaWindow): DmaWindow {
    const end = window.address + window.size;
    const about = { call: 'DMA_MAP', path: rangeOf(window) };
    if (window.size === 0n) {
      throw new WireError('EINVAL', 'it is empty', about);
    }
    if (end > 1n << 64n) {
      throw new WireError('EINVAL', 'it wraps around', about);
    }
    if (window.fileOffset + window.size > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new WireError('EINVAL', 'it reaches past what a file offset can be', about);
    }
    if (this.#windows.length >= this.#maximum) {
      throw new WireError('ENOSPC', `it would be number ${this.#maximum + 1}`, about);
    }
    const at = this.#firstEndingAfter(window.address);
    const next = this.#windows[at];
    if (next !== undefined && next.address < end) {
      throw new WireError('EEXIST', `it overlaps ${rangeOf(next)}`, about);
    }
    const kept = window.fd === NO_FILE ? window : { ...window, fd: this.#share(window.fd) };
    this.#windows.splice(at, 0, kept);
    return kept;
  }

  /** The first `most` windows that end above the address, in order. */
  from(address: bigint, most: number): readonly DmaWindow[] {
    const at = this.#firstEndingAfter(address);
    return this.#windows.slice(at, at + most);
  }

  /**
   * The last windows that lie inside the range, `most` at most; EINVAL where one, also of the others, would be cut in two.
   * They stay until `remove`.
   */
  lastInside(address: bigint, size: bigint, most: number): readonly DmaWindow[] {
    const end = address + size;
    const from = this.#firstEndingAfter(address);
    const to = this.#first((window) => window.address >= end);
    // Only the first can begin before the range, and only the last can reach past it.
    for (const at of from < to ? [from, to - 1] : []) {
      this.#requireInside(this.#windows[at]!, address, end);
    }
    return this.#windows.slice(Math.max(from, to - most), to);
  }

  #requireInside(window: DmaWindow, address: bigint, end: bigint): void {
    if (window.address < address || window.address + window.size > end) {
      throw new WireError('EINVAL', `it would cut ${rangeOf(window)} in two`, {
        call: 'DMA_UNMAP',
        path: rangeOf({ address, size: end - address }),
      });
    }
  }

  /**
   * Removes windows between which no other lies, at once: each removal moves all that is behind. Those that were removed
   * before are passed over. Gives how many it removed.
   */
  remove(windows: readonly DmaWindow[]): number {
    const gone = new Set(windows);
    const at = this.#firstEndingAfter(windows[0]?.address ?? 0n);
    let count = 0;
    for (let next = this.#windows[at]; next !== undefined && gone.has(next); ) {
      next = this.#windows[at + ++count];
    }
    for (const { fd } of this.#windows.splice(at, count)) {
      if (fd !== NO_FILE) {
        this.#release(fd);
      }
    }
    return count;
  }

  clear(): void {
    this.#windows.length = 0;
    this.#fileByFd.clear();
    for (const { fd, mapped } of this.#files.values()) {
      mapped?.unmap();
      closeFd(fd);
    }
    this.#files.clear();
  }

  /** Copies guest memory; false where a byte of it is in no readable window, or the file is shorter than it said. */
  read(address: bigint, into: Uint8Array): boolean {
    return this.#copy(address, into, readAt, isReadable);
  }

  write(address: bigint, from: Uint8Array): boolean {
    return this.#copy(address, from, writeAt, isWritable);
  }

  /**
   * Copies between a file and as many bytes of guest memory as the ranges have, in one call of the kernel. False as for `read`
   * and `write`; undefined where it cannot be done so, or not all was copied: then nothing is certain.
   */
  moveFile(
    { fd, offset }: FilePlace,
    ranges: readonly GuestRange[],
    way: FileDirection,
  ): boolean | undefined {
    const allowed = way === 'fromFile' ? isWritable : isReadable;
    places.clear();
    for (const { address, length } of ranges) {
      const isThere = this.#walk(address, length, allowed, (window, inFile, piece) => {
        const place = this.#fileByFd.get(window.fd)!.mapped?.placeOf(inFile, piece);
        return place === undefined || !places.add(place, piece) ? undefined : true;
      });
      if (isThere !== true) {
        return isThere;
      }
    }
    const moved = way === 'fromFile' ? places.fillFrom(fd, offset) : places.writeTo(fd, offset);
    return moved === places.length ? true : undefined;
  }

  #copy(
    address: bigint,
    bytes: Uint8Array,
    transfer: (fd: number, bytes: Uint8Array, offset: number) => number,
    allowed: (window: DmaWindow) => boolean,
  ): boolean {
    let done = 0;
    const copied = this.#walk(address, bytes.length, allowed, ({ fd }, inFile, length) => {
      const piece = bytes.subarray(done, done + length);
      done += length;
      return transfer(fd, piece, inFile) === length;
    });
    return copied === true;
  }

  /**
   * Visits the pieces of a range in order, each of them `length` bytes at `inFile` of a window's file, until one is not there
   * (false) or `visit` gives anything but true.
   */
  #walk(
    address: bigint,
    length: number,
    allowed: (window: DmaWindow) => boolean,
    visit: (window: DmaWindow, inFile: number, length: number) => boolean | undefined,
  ): boolean | undefined {
    let done = 0;
    let at = this.#firstEndingAfter(address);
    while (done < length) {
      const position = address + BigInt(done);
      const window = this.#windows[at++];
      if (window === undefined || window.address > position || window.fd === NO_FILE) {
        return false;
      }
      if (!allowed(window)) {
        return false;
      }
      const inside = Number(position - window.address);
      const piece = Math.min(length - done, Number(window.size) - inside);
      const visited = visit(window, Number(window.fileOffset) + inside, piece);
      if (visited !== true) {
        return visited;
      }
      done += piece;
    }
    return true;
  }

  #firstEndingAfter(address: bigint): number {
    // Mostly it is the one that was asked for last.
    const last = this.#windows[this.#asked];
    if (last === undefined || address < last.address || address - last.address >= last.size) {
      this.#asked = this.#first((window) => window.address + window.size > address);
    }
    return this.#asked;
  }

  /** Where the windows begin of which something is true that is true of all behind them, too. */
  #first(isTrue: (window: DmaWindow) => boolean): number {
    let low = 0;
    let high = this.#windows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isTrue(this.#windows[middle]!)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  #share(fd: number): number {
    const identity = openFileIdentity(fd);
    const known = this.#files.get(identity);
    if (known !== undefined) {
      known.users++;
      if (known.fd !== fd) {
        closeFd(fd);
      }
      return known.fd;
    }
    const mapped = this.#files.size < MOST_MAPPED_FILES ? new MappedFile(fd) : undefined;
    const file = { fd, identity, mapped, users: 1 };
    this.#files.set(identity, file);
    this.#fileByFd.set(fd, file);
    return fd;
  }

  #release(fd: number): void {
    const file = this.#fileByFd.get(fd);
    if (file === undefined || --file.users > 0) {
      return;
    }
    this.#files.delete(file.identity);
    this.#fileByFd.delete(fd);
    file.mapped?.unmap();
    closeFd(fd);
  }
}

function isReadable({ readable }: DmaWindow): boolean {
  return readable;
}

function isWritable({ writable }: DmaWindow): boolean {
  return writable;
}

/** Which file an fd is of, and for what it is open: one that came read-only once may come writable later. */
export function openFileIdentity(fd: number): string {
  return `${fileIdentity(fd)}:${fcntl(fd, F_GETFL, 0) & O_ACCMODE}`;
}

function rangeOf({ address, size }: Pick<DmaWindow, 'address' | 'size'>): string {
  return `0x${address.toString(16)}+0x${size.toString(16)}`;
}
