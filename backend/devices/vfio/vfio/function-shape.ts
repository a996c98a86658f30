// What a function looks like, put together from what VFIO says about it. Pure but for readFunctionShape, which asks.
// Called when a function is opened.
import { Errno } from '../../../../protocol/errno.ts';
import { PAGE_BYTES } from '../../../../protocol/page.ts';
import { IrqIndex, RegionIndex } from '../../../../protocol/vfio-user/commands.ts';
import { IrqInfo, RegionFlag, RegionInfo } from '../../../../protocol/vfio-user/messages.ts';
import {
  type DecodedRegionInfo,
  decodeRegionInfo,
} from '../../../../protocol/vfio-user/region-info.ts';
import {
  type FunctionShape,
  HostError,
  type IrqShape,
  type RegionShape,
} from '../../../device/physical-device.ts';
import { BAR_COUNT, type BarShape, barType } from '../../../pci/bars.ts';
import { msixPlaces } from '../../../pci/msix-places.ts';
import { registerIn } from '../../../pci/registers.ts';
import { BAR_REGISTERS, HEADER } from '../../../pci/spec/header.ts';
import { VfioRequest } from './abi.ts';
import type { DeviceCalls } from './kernel-calls.ts';

type Area = { readonly offset: number; readonly size: number };

/** A function's shape, and where each region starts in the device file. */
export interface OpenShape {
  readonly shape: FunctionShape;
  readonly regionOffsets: readonly bigint[];
}

/** @throws HostError when an open function does not answer: its config space reads all-ones. */
export function checkAnswers(calls: DeviceCalls, deviceFd: number, bdf: string): void {
  const { offset } = regionInfo(calls, deviceFd, RegionIndex.config);
  // VFIO makes up a VF's IDs, so that they would hide a dead device; these never read all-ones on a live one.
  const revisionAndClass = new Uint8Array(4);
  const got = calls.readAt(deviceFd, revisionAndClass, offset + HEADER.revisionId.offset);
  if (got === revisionAndClass.length && !revisionAndClass.every((byte) => byte === 0xff)) {
    return;
  }
  throw offTheBus(got, bdf);
}

/** Asks VFIO about an open function. @throws HostError, also when the device has fallen off the bus. */
export function readFunctionShape(calls: DeviceCalls, deviceFd: number, bdf: string): OpenShape {
  const infos = Object.values(RegionIndex).map((index) => regionInfo(calls, deviceFd, index));
  const configInfo = infos[RegionIndex.config]!;
  const config = new Uint8Array(configInfo.size);
  const got = calls.readAt(deviceFd, config, configInfo.offset);
  if (got !== config.length) {
    throw offTheBus(got, bdf);
  }
  checkAnswers(calls, deviceFd, bdf);
  const table = msixTable(config);
  const regions = infos.map((info) => regionShape(info, table));
  const irqs = Object.values(IrqIndex).map((index) => irqShape(calls, deviceFd, index));
  return {
    shape: { config, regions, irqs, bars: barsOf(config, regions) },
    regionOffsets: infos.map(({ offset }) => BigInt(offset)),
  };
}

/** BARs from the regions' sizes and the type bits that VFIO's virtual BAR registers keep. */
export function barsOf(config: Uint8Array, regions: readonly RegionShape[]): BarShape[] {
  return regions
    .filter(({ index, size }) => index < BAR_COUNT && size > 0)
    .map(({ index, size }) => ({
      index,
      size,
      ...barType(registerIn(config, 0, HEADER[BAR_REGISTERS[index]!])),
    }));
}

/** The BAR and the bytes of the MSI-X table, whole pages. */
export function msixTable(config: Uint8Array): (Area & { readonly bar: number }) | undefined {
  const table = msixPlaces(config)?.table;
  if (table === undefined) {
    return undefined;
  }
  const offset = table.start - (table.start % PAGE_BYTES);
  return { bar: table.bar, offset, size: Math.ceil(table.end / PAGE_BYTES) * PAGE_BYTES - offset };
}

/** `areas` without the bytes of `hole`. */
export function withoutArea(areas: readonly Area[], hole: Area): Area[] {
  const holeEnd = hole.offset + hole.size;
  return areas.flatMap(({ offset, size }) => {
    const end = offset + size;
    return [
      { offset, size: Math.min(end, hole.offset) - offset },
      { offset: Math.max(offset, holeEnd), size: end - Math.max(offset, holeEnd) },
    ].filter((part) => part.size > 0);
  });
}

function regionShape(
  info: DecodedRegionInfo,
  table: (Area & { readonly bar: number }) | undefined,
): RegionShape {
  const whole = [{ offset: 0, size: info.size }];
  const canMap = (info.flags & RegionFlag.mmap) !== 0 && info.size >= PAGE_BYTES;
  const mappable = !canMap ? [] : info.areas.length > 0 ? info.areas : whole;
  return {
    index: info.index,
    size: info.size,
    readable: (info.flags & RegionFlag.read) !== 0,
    writable: (info.flags & RegionFlag.write) !== 0,
    // The kernel may allow mapping the table (MSIX_MAPPABLE), but a VMM that did would bypass its own virtual one.
    mappable: table?.bar === info.index ? withoutArea(mappable, table) : mappable,
  };
}

function regionInfo(calls: DeviceCalls, deviceFd: number, index: number): DecodedRegionInfo {
  let room: number = RegionInfo.size;
  for (;;) {
    const body = new Uint8Array(room);
    RegionInfo.encode({ argsz: room, flags: 0, index, capOffset: 0, size: 0n, offset: 0n }, body);
    const result = calls.ioctl(deviceFd, VfioRequest.deviceGetRegionInfo, body);
    // A device without a VGA range answers EINVAL for that index.
    if (result < 0) {
      return { argsz: room, index, flags: 0, size: 0, offset: 0, areas: [] };
    }
    const needed = RegionInfo.decode(body).argsz;
    if (needed <= room) {
      return decodeRegionInfo(body);
    }
    room = needed;
  }
}

function irqShape(calls: DeviceCalls, deviceFd: number, index: number): IrqShape {
  const body = IrqInfo.encode({ argsz: IrqInfo.size, flags: 0, index, count: 0 });
  const result = calls.ioctl(deviceFd, VfioRequest.deviceGetIrqInfo, body);
  if (result < 0) {
    return { index, count: 0, flags: 0 };
  }
  const { count, flags } = IrqInfo.decode(body);
  return { index, count, flags };
}

function offTheBus(got: number, bdf: string): HostError {
  return new HostError(
    'pread',
    got < 0 ? -got : Errno.EIO,
    bdf,
    'its config space reads all-ones: the device has fallen off the bus',
    'see dmesg; a power cycle of the host may be needed',
  );
}
