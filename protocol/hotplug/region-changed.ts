// RegionChanged, the one command of the extension whose body is a plain record, as the vfio-user standard's own are: a VMM that
// takes it needs no protobuf. Pure.

import { WireError } from '../errno.ts';
import { record, u32 } from '../record.ts';

/** 8 bytes: `argsz` is the size of this body, `index` the region's. */
export const RegionChanged = record({ argsz: u32, index: u32 }, 'RegionChanged');

export function encodeRegionChanged(index: number): Uint8Array {
  return RegionChanged.encode({ argsz: RegionChanged.size, index });
}

/** Gives the region's index. @throws WireError EINVAL for a body that is too short, or says so. */
export function decodeRegionChanged(body: Uint8Array): number {
  const { argsz, index } = RegionChanged.decode(body);
  if (argsz < RegionChanged.size) {
    throw new WireError('EINVAL', `argsz is ${argsz}`, { call: 'RegionChanged' });
  }
  return index;
}
