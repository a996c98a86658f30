// Layouts and flags of every vfio-user message that we speak, after QEMU's docs/interop/vfio-user.rst.
// Offsets count from the end of the 16-byte header, but for Header itself. Pure.
import { WireError } from '../errno.ts';
import { type RecordOf, readU32, record, u16, u32, u64, writeU32 } from '../record.ts';

/** Message header, 16 bytes. `size` counts the whole message; `error` means something only with HeaderFlag.error. */
export const Header = record(
  { id: u16, command: u16, size: u32, flags: u32, error: u32 },
  'Header',
);
export type Header = RecordOf<typeof Header>;

/** Header.flags; bits above 5 are reserved. */
export const HeaderFlag = {
  typeMask: 0xf,
  command: 0,
  reply: 1,
  noReply: 0x10,
  error: 0x20,
} as const;

/** VERSION, both ways, 4 bytes; optional JSON with a NUL follows. */
export const VersionPrefix = record({ major: u16, minor: u16 }, 'VersionPrefix');

/** DMA_MAP request, 32 bytes, with 0 or 1 fd; `argsz` is the size of this request's payload. The reply is empty. */
export const DmaMap = record(
  { argsz: u32, flags: u32, offset: u64, address: u64, size: u64 },
  'DmaMap',
);
export type DmaMap = RecordOf<typeof DmaMap>;
/** DmaMap.flags; `mmap` and `fileIo` are libvfio-user's additions. */
export const DmaFlag = { read: 1, write: 2, mmap: 4, fileIo: 8 } as const;

/** DMA_UNMAP request and reply, 24 bytes; a DirtyBitmap follows when UnmapFlag.getDirtyBitmap is set. */
export const DmaUnmap = record({ argsz: u32, flags: u32, address: u64, size: u64 }, 'DmaUnmap');
export type DmaUnmap = RecordOf<typeof DmaUnmap>;
/** DmaUnmap.flags; the standard has none of them, QEMU sends `all` with address = size = 0. */
export const UnmapFlag = { getDirtyBitmap: 1, all: 2 } as const;
/** Follows DmaUnmap at 24 when a dirty bitmap is asked for; the bitmap follows at 40 in the reply. */
export const DirtyBitmap = record({ pageSize: u64, size: u64 }, 'DirtyBitmap');

/** DEVICE_GET_INFO request and reply, 16 bytes. */
export const DeviceInfo = record(
  { argsz: u32, flags: u32, numRegions: u32, numIrqs: u32 },
  'DeviceInfo',
);
export type DeviceInfo = RecordOf<typeof DeviceInfo>;
export const DeviceInfoFlag = { reset: 1, pci: 2 } as const;

/** DEVICE_GET_REGION_INFO request and reply, 32 bytes; capabilities follow in the reply (region-info.ts). */
export const RegionInfo = record(
  { argsz: u32, flags: u32, index: u32, capOffset: u32, size: u64, offset: u64 },
  'RegionInfo',
);
export type RegionInfo = RecordOf<typeof RegionInfo>;
export const RegionFlag = { read: 1, write: 2, mmap: 4, caps: 8 } as const;

/** Head of every capability in a REGION_INFO reply; `next` counts from the payload's start, 0 ends the chain. */
export const CapabilityHeader = record({ id: u16, version: u16, next: u32 }, 'CapabilityHeader');
/** The capability (id 1, version 1) that says which parts of a region may be mapped; areas follow at 16. */
export const SparseMmap = record(
  { id: u16, version: u16, next: u32, areaCount: u32, reserved: u32 },
  'SparseMmap',
);
export const SparseMmapArea = record({ offset: u64, size: u64 }, 'SparseMmapArea');
export const RegionCapability = { sparseMmap: 1 } as const;

/** DEVICE_GET_REGION_IO_FDS request and head of the reply, 16 bytes; `count` entries follow in the reply. */
export const RegionIoFds = record(
  { argsz: u32, flags: u32, index: u32, count: u32 },
  'RegionIoFds',
);
/** One entry of a REGION_IO_FDS reply as the standard has it, 40 bytes (libvfio-user's has 48). */
export const RegionIoFd = record(
  { offset: u64, size: u64, fdIndex: u32, type: u32, flags: u32, padding: u32, dataMatch: u64 },
  'RegionIoFd',
);
export const RegionIoFdType = { ioEventFd: 0, ioRegionFd: 1 } as const;

/** DEVICE_GET_IRQ_INFO request and reply, 16 bytes. */
export const IrqInfo = record({ argsz: u32, flags: u32, index: u32, count: u32 }, 'IrqInfo');
export type IrqInfo = RecordOf<typeof IrqInfo>;
export const IrqInfoFlag = { eventFd: 1, maskable: 2, autoMasked: 4, noResize: 8 } as const;

/** DEVICE_SET_IRQS request, 20 bytes; with dataBool one byte per interrupt follows. The reply is empty. */
export const IrqSet = record(
  { argsz: u32, flags: u32, index: u32, start: u32, count: u32 },
  'IrqSet',
);
export type IrqSet = RecordOf<typeof IrqSet>;
/** IrqSet.flags: exactly one of the data group and one of the action group. */
export const IrqSetFlag = {
  dataNone: 1,
  dataBool: 2,
  dataEventFd: 4,
  actionMask: 8,
  actionUnmask: 0x10,
  actionTrigger: 0x20,
  dataGroup: 0x07,
  actionGroup: 0x38,
} as const;

/** REGION_READ and REGION_WRITE, both ways, 16 bytes; `count` data bytes follow in a READ reply and a WRITE request. */
export const RegionAccess = record({ offset: u64, region: u32, count: u32 }, 'RegionAccess');
export type RegionAccess = RecordOf<typeof RegionAccess>;

/** DMA_READ and DMA_WRITE, both ways, 16 bytes; data follow as with RegionAccess. */
export const DmaAccess = record({ address: u64, count: u64 }, 'DmaAccess');
export type DmaAccess = RecordOf<typeof DmaAccess>;

/** REGION_WRITE_MULTI: the number of entries in a request, of entries carried out in a reply. */
export const WriteMultiCount = record({ count: u64 }, 'WriteMultiCount');
/** One entry of REGION_WRITE_MULTI, 24 bytes; `count` <= 8 bytes of `data` count, the lowest first. */
export const WriteMultiEntry = record(
  { offset: u64, region: u32, count: u32, data: u64 },
  'WriteMultiEntry',
);

/** DEVICE_FEATURE, both ways, 8 bytes; the feature's own data follow. */
export const DeviceFeature = record({ argsz: u32, flags: u32 }, 'DeviceFeature');
/** DeviceFeature.flags: the feature's number in the low half, what to do with it in the high half. */
export const FeatureFlag = {
  featureMask: 0xffff,
  get: 0x1_0000,
  set: 0x2_0000,
  probe: 0x4_0000,
} as const;

/** A RegionAccess whose offset fits a number; one object is filled again and again. */
export interface RegionAccessFields {
  offset: number;
  region: number;
  count: number;
}

/** Reads a RegionAccess into `out` without a BigInt. @throws WireError EINVAL when short or the offset is not below 2^53. */
export function readRegionAccess(body: Uint8Array, out: RegionAccessFields): void {
  if (body.length < 16) {
    throw new WireError(
      'EINVAL',
      `RegionAccess needs 16 bytes at 0, the message has ${body.length}`,
    );
  }
  const high = readU32(body, 4);
  if (high > 0x1f_ffff) {
    throw new WireError(
      'EINVAL',
      `region offset has 0x${high.toString(16)} in its high half: it must be below 2^53`,
    );
  }
  out.offset = high * 0x1_0000_0000 + readU32(body, 0);
  out.region = readU32(body, 8);
  out.count = readU32(body, 12);
}

/** Writes a RegionAccess at byte `at` without a BigInt; the caller has checked room and ranges. */
export function writeRegionAccess(
  into: Uint8Array,
  at: number,
  offset: number,
  region: number,
  count: number,
): void {
  writeU32(into, at, offset % 0x1_0000_0000);
  writeU32(into, at + 4, Math.floor(offset / 0x1_0000_0000));
  writeU32(into, at + 8, region);
  writeU32(into, at + 12, count);
}
