// Linux's VFIO interface as data: ioctl numbers, limits and layouts of linux/vfio.h that the vfio-user standard did not
// take over as they are (RegionInfo, IrqInfo, IrqSet and their flags are the same in both: see protocol/vfio-user).
import { record, u16, u32, u64 } from '../../../../protocol/record.ts';

// _IO(';', 100 + n): VFIO's numbers carry no size and no direction.
const request = (n: number) => (0x3b << 8) | (100 + n);

/** ioctl numbers. linux/vfio.h. */
export const VfioRequest = {
  getApiVersion: request(0),
  checkExtension: request(1),
  setIommu: request(2),
  groupGetStatus: request(3),
  groupSetContainer: request(4),
  groupGetDeviceFd: request(6),
  deviceGetInfo: request(7),
  deviceGetRegionInfo: request(8),
  deviceGetIrqInfo: request(9),
  deviceSetIrqs: request(10),
  deviceReset: request(11),
  iommuGetInfo: request(12),
  iommuMapDma: request(13),
  iommuUnmapDma: request(14),
} as const;

export const VFIO_API_VERSION = 0;
/** The IOMMU driver "type 1, version 2": unmaps whole mappings only. */
export const TYPE1_V2 = 3;

export const GroupStatus = record({ argsz: u32, flags: u32 }, 'GroupStatus');
export const GroupStatusFlag = { viable: 1, containerSet: 2 } as const;

/** VFIO_IOMMU_MAP_DMA. */
export const IommuMap = record(
  { argsz: u32, flags: u32, address: u64, iova: u64, size: u64 },
  'IommuMap',
);
export const IommuMapFlag = { read: 1, write: 2 } as const;

/** VFIO_IOMMU_UNMAP_DMA; the kernel writes the number of bytes that it unmapped into `size`. */
export const IommuUnmap = record({ argsz: u32, flags: u32, iova: u64, size: u64 }, 'IommuUnmap');

/** VFIO_IOMMU_GET_INFO; a chain of capabilities follows at `capOffset`. */
export const IommuInfo = record(
  { argsz: u32, flags: u32, pageSizes: u64, capOffset: u32, reserved: u32 },
  'IommuInfo',
);
export const IommuInfoFlag = { pageSizes: 1, caps: 2 } as const;
export const IommuCapability = { iovaRanges: 1, migration: 2, dmaAvailable: 3 } as const;
export const IovaRanges = record(
  { id: u16, version: u16, next: u32, count: u32, reserved: u32 },
  'IovaRanges',
);
export const IovaRange = record({ start: u64, end: u64 }, 'IovaRange');
export const DmaAvailable = record(
  { id: u16, version: u16, next: u32, available: u32 },
  'DmaAvailable',
);
