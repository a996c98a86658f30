// Guest memory as a device in RAM reaches it: by DMA address, through the windows that its client mapped. Lists of
// segments are what scatter-gather lists, PRPs and rings come to.

import type { FileDirection, FilePlace, GuestRange } from '../../device/physical-device.ts';

/** `address` on the guest's bus, `length` in bytes. */
export type Segment = GuestRange;

/** Copies guest memory; false where a byte of the range is not mapped, or not for this direction: then nothing is certain. */
export interface GuestMemory {
  read(address: bigint, into: Uint8Array): boolean;
  write(address: bigint, from: Uint8Array): boolean;
  /**
   * Copies between a file and as many bytes of guest memory as the segments have, in one call of the kernel. False as above;
   * undefined: not all of it could be copied in this way, and nothing is certain.
   */
  moveFile?(file: FilePlace, segments: readonly Segment[], way: FileDirection): boolean | undefined;
}

/** Fills `into` from the segments in order; the segment that could not be read, or undefined. */
export function gather(
  memory: GuestMemory,
  segments: readonly Segment[],
  into: Uint8Array,
): Segment | undefined {
  return walk(segments, into, (address, piece) => memory.read(address, piece));
}

/** Spreads `from` over the segments in order; the segment that could not be written, or undefined. */
export function scatter(
  memory: GuestMemory,
  segments: readonly Segment[],
  from: Uint8Array,
): Segment | undefined {
  return walk(segments, from, (address, piece) => memory.write(address, piece));
}

function walk(
  segments: readonly Segment[],
  bytes: Uint8Array,
  copy: (address: bigint, piece: Uint8Array) => boolean,
): Segment | undefined {
  let done = 0;
  for (const segment of segments) {
    if (done === bytes.length) {
      break;
    }
    const length = Math.min(segment.length, bytes.length - done);
    if (!copy(segment.address, bytes.subarray(done, done + length))) {
      return segment;
    }
    done += length;
  }
  return undefined;
}

/** The part of a list that starts `skip` bytes in and is `length` bytes long. */
export function slice(segments: readonly Segment[], skip: number, length: number): Segment[] {
  const found: Segment[] = [];
  let before = skip;
  let left = length;
  for (const segment of segments) {
    if (left === 0) {
      break;
    }
    if (before >= segment.length) {
      before -= segment.length;
      continue;
    }
    const take = Math.min(segment.length - before, left);
    found.push({ address: segment.address + BigInt(before), length: take });
    before = 0;
    left -= take;
  }
  return found;
}
