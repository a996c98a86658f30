// Physical Region Pages: from a command's two PRP entries to segments of guest memory. Pure but for reading the lists.
// NVM Express 1.4, "Physical Region Page Entry and List".

import type { GuestMemory, Segment } from '../kit/guest-memory.ts';
import { Status } from './spec/status.ts';

const ENTRY_BYTES = 8;
/** Part of a list, of at most a page: kept, because each buffer outside of V8's heap is work for its collections. */
let list = new DataView(new ArrayBuffer(64 * ENTRY_BYTES));

/** The segments of `length` bytes (at least 1), neighbours joined; or why there are none. */
export function prpSegments(
  prp1: bigint,
  prp2: bigint,
  length: number,
  pageBytes: number,
  memory: Pick<GuestMemory, 'read'>,
): readonly Segment[] | Status {
  const first = offsetIn(prp1, pageBytes);
  if (first % 4 !== 0) {
    return Status.invalidPrpOffset;
  }
  const segments: Segment[] = [];
  const firstLength = Math.min(length, pageBytes - first);
  append(segments, prp1, firstLength);
  const left = length - firstLength;
  if (left === 0) {
    return segments;
  }
  if (left <= pageBytes) {
    if (offsetIn(prp2, pageBytes) !== 0) {
      return Status.invalidPrpOffset;
    }
    append(segments, prp2, left);
    return segments;
  }
  return followList(segments, prp2, left, pageBytes, memory);
}

/** A page's last entry leads to the next page of the list where more pages follow than it has entries left. */
function followList(
  segments: Segment[],
  start: bigint,
  length: number,
  pageBytes: number,
  memory: Pick<GuestMemory, 'read'>,
): readonly Segment[] | Status {
  if (offsetIn(start, ENTRY_BYTES) !== 0) {
    return Status.invalidPrpOffset;
  }
  let left = length;
  let address = start;
  for (;;) {
    const room = (pageBytes - offsetIn(address, pageBytes)) / ENTRY_BYTES;
    const wanted = Math.ceil(left / pageBytes);
    const count = Math.min(room, wanted);
    if (!readList(address, count, memory)) {
      return Status.dataTransferError;
    }
    const pages = wanted > room ? count - 1 : count;
    for (let index = 0; index < pages; index++) {
      const page = list.getBigUint64(index * ENTRY_BYTES, true);
      if (offsetIn(page, pageBytes) !== 0) {
        return Status.invalidPrpOffset;
      }
      append(segments, page, Math.min(left, pageBytes));
      left -= Math.min(left, pageBytes);
    }
    if (left === 0) {
      return segments;
    }
    // A list page starts at a page's start, so that each holds at least one entry more and the walk ends.
    address = list.getBigUint64(pages * ENTRY_BYTES, true);
    if (offsetIn(address, pageBytes) !== 0) {
      return Status.invalidPrpOffset;
    }
  }
}

function readList(address: bigint, count: number, memory: Pick<GuestMemory, 'read'>): boolean {
  const bytes = count * ENTRY_BYTES;
  if (list.byteLength < bytes) {
    list = new DataView(new ArrayBuffer(bytes));
  }
  return memory.read(address, new Uint8Array(list.buffer, 0, bytes));
}

function append(segments: Segment[], address: bigint, length: number): void {
  const last = segments.at(-1);
  if (last !== undefined && last.address + BigInt(last.length) === address) {
    segments[segments.length - 1] = { address: last.address, length: last.length + length };
  } else {
    segments.push({ address, length });
  }
}

/** `unit` is a power of two. */
function offsetIn(address: bigint, unit: number): number {
  return Number(address & BigInt(unit - 1));
}
