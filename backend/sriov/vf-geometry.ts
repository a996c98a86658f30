// Where the memory of virtual functions sits: their BARs' sizes and addresses, and the page sizes these follow.
// Pure arithmetic; the SR-IOV capability and the announcement of each VF ask here.

/** The six page sizes that the standard demands: 4 KiB, 8 KiB, 64 KiB, 256 KiB, 1 MiB, 4 MiB. */
export const SUPPORTED_PAGE_SIZES = 0x553;

const SMALLEST_PAGE_BYTES = 4096;

/**
 * The page size in bytes that a System Page Size value selects. The standard leaves anything but one supported bit
 * undefined; here the lowest bit counts, and none means 4 KiB, so that a write in single bytes never overshoots.
 */
export function pageSizeOf(systemPageSize: number): number {
  const supported = systemPageSize & SUPPORTED_PAGE_SIZES;
  const lowest = supported & -supported;
  return lowest === 0 ? SMALLEST_PAGE_BYTES : SMALLEST_PAGE_BYTES * lowest;
}

/** A VF BAR is never smaller than a page: the larger of what the host's VF has and the guest's page, in bytes. */
export function virtualVfBarSize(hostSize: number, pageSize: number): number {
  return Math.max(hostSize, pageSize);
}

/** The address of VF `vfIndex`'s BAR: the VF BAR's address covers all VFs, one `size` after the other. */
export function vfBarAddress(base: bigint, size: number, vfIndex: number): bigint {
  return base + BigInt(vfIndex) * BigInt(size);
}
