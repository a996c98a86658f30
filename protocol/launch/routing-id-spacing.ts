// Where a guest finds its VFs: one behind the other, right after their PF, in every topology that is built. The backend
// puts these numbers into the SR-IOV capability, and the launcher places the slots by them. Pure.

/** First VF Offset and VF Stride (PCIe Base 4.0, "Single Root I/O Virtualization and Sharing"). */
export const ROUTING_ID_SPACING = { firstVfOffset: 1, vfStride: 1 } as const;

/** Routing ID of VF `vfIndex` minus that of its PF. */
export function vfRoutingIdOffset(vfIndex: number): number {
  return ROUTING_ID_SPACING.firstVfOffset + vfIndex * ROUTING_ID_SPACING.vfStride;
}
