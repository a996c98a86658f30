// The dword that opens every extended capability. PCIe Base 4.0, "PCI Express Extended Capability Header".

import { bits, reg32, registerValue } from '../registers.ts';

export const EXTENDED_HEADER = reg32(0x00, {
  capabilityId: bits(15, 0, 'ro'),
  version: bits(19, 16, 'ro'),
  nextPointer: bits(31, 20, 'ro'),
});

/** The header's value; `next` is the next capability's offset in config space, 0 at the chain's end. */
export function extendedHeader(id: number, version: number, next: number): number {
  return registerValue(EXTENDED_HEADER, { capabilityId: id, version, nextPointer: next });
}
