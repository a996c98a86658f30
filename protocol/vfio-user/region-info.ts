// DEVICE_GET_REGION_INFO replies with their capability chain, in one piece: what the server writes and the client
// reads. Pure. A region's sizes and offsets are numbers here: both directions check that they fit.
import { WireError } from '../errno.ts';
import { toNumber } from '../record.ts';
import {
  CapabilityHeader,
  RegionCapability,
  RegionFlag,
  RegionInfo,
  SparseMmap,
  SparseMmapArea,
} from './messages.ts';

/** A part of a region that may be mapped; bytes from the region's start. */
export interface MmapArea {
  offset: number;
  size: number;
}

/** What a server says about a region. */
export interface RegionDescription {
  index: number;
  /** RegionFlag bits; `caps` is set by itself where the reply has room for the areas. */
  flags: number;
  size: number;
  /** Offset of the region's start in the fd that comes with the reply. */
  offset: number;
  /** Parts that may be mapped; none = all of it, if RegionFlag.mmap is set. */
  areas?: readonly MmapArea[];
}

/** What a client learns; `argsz` above the body's length means: ask again with that much room. */
export interface DecodedRegionInfo extends RegionDescription {
  argsz: number;
  areas: MmapArea[];
}

/** Bytes of the full reply payload: what `argsz` in the reply says. */
export function regionInfoSize(description: RegionDescription): number {
  const areas = description.areas?.length ?? 0;
  return RegionInfo.size + (areas === 0 ? 0 : SparseMmap.size + areas * SparseMmapArea.size);
}

/**
 * The reply payload for a request whose `argsz` is `room`. When the capabilities do not fit, only the fixed 32 bytes
 * are given, with the argsz to ask again with, and without RegionFlag.caps: QEMU 11.1 takes the flag with a capOffset
 * of 0, as Linux's VFIO gives it, for an error, and no client can follow an offset that the reply ends before.
 * @throws WireError EINVAL when `room` is less than 32.
 */
export function encodeRegionInfo(description: RegionDescription, room: number): Uint8Array {
  if (room < RegionInfo.size) {
    throw new WireError(
      'EINVAL',
      `argsz of GET_REGION_INFO is ${room}: it must be at least ${RegionInfo.size}`,
    );
  }
  const areas = description.areas ?? [];
  const argsz = regionInfoSize(description);
  const withCapabilities = areas.length > 0 && argsz <= room;
  const body = new Uint8Array(withCapabilities ? argsz : RegionInfo.size);
  RegionInfo.encode(
    {
      argsz,
      flags: withCapabilities ? description.flags | RegionFlag.caps : description.flags,
      index: description.index,
      capOffset: withCapabilities ? RegionInfo.size : 0,
      size: BigInt(description.size),
      offset: BigInt(description.offset),
    },
    body,
  );
  if (!withCapabilities) {
    return body;
  }
  SparseMmap.encode(
    { id: RegionCapability.sparseMmap, version: 1, next: 0, areaCount: areas.length, reserved: 0 },
    body,
    RegionInfo.size,
  );
  let at = RegionInfo.size + SparseMmap.size;
  for (const { offset, size } of areas) {
    SparseMmapArea.encode({ offset: BigInt(offset), size: BigInt(size) }, body, at);
    at += SparseMmapArea.size;
  }
  return body;
}

/** Reads a reply payload; unknown capabilities are skipped. @throws WireError EINVAL when it contradicts itself. */
export function decodeRegionInfo(body: Uint8Array): DecodedRegionInfo {
  const info = RegionInfo.decode(body);
  const areas: MmapArea[] = [];
  const isCut = info.argsz > body.length;
  // A server that sets the flag in a cut reply all the same means the one that is still to be asked for.
  let at = (info.flags & RegionFlag.caps) !== 0 && !isCut ? info.capOffset : 0;
  let previous = RegionInfo.size - 1;
  while (at !== 0) {
    // Only forward links are taken: that alone rules out loops and overlaps with the fixed part.
    if (at <= previous) {
      throw new WireError('EINVAL', `capability of region ${info.index} links back to byte ${at}`);
    }
    const head = CapabilityHeader.decode(body, at);
    if (head.id === RegionCapability.sparseMmap) {
      areas.push(...decodeAreas(body, at));
    }
    previous = at;
    at = head.next;
  }
  return {
    argsz: info.argsz,
    index: info.index,
    flags: info.flags,
    size: toNumber(info.size, `size of region ${info.index}`),
    offset: toNumber(info.offset, `file offset of region ${info.index}`),
    areas,
  };
}

function decodeAreas(body: Uint8Array, at: number): MmapArea[] {
  const { areaCount } = SparseMmap.decode(body, at);
  const first = at + SparseMmap.size;
  const room = Math.floor((body.length - first) / SparseMmapArea.size);
  if (areaCount > room) {
    throw new WireError(
      'EINVAL',
      `sparse-mmap capability counts ${areaCount} areas, the message has ${room}`,
    );
  }
  return Array.from({ length: areaCount }, (_, i) => {
    const area = SparseMmapArea.decode(body, first + i * SparseMmapArea.size);
    return {
      offset: toNumber(area.offset, `offset of mmap area ${i}`),
      size: toNumber(area.size, `size of mmap area ${i}`),
    };
  });
}
