// What a client asks about the function before it uses it: regions and interrupts.

import { WireError } from '../../../protocol/errno.ts';
import { toNumber } from '../../../protocol/record.ts';
import {
  DeviceInfo,
  DeviceInfoFlag,
  IrqInfo,
  RegionFlag,
  RegionInfo,
  RegionIoFds,
} from '../../../protocol/vfio-user/messages.ts';
import { encodeRegionInfo } from '../../../protocol/vfio-user/region-info.ts';
import type { Request } from '../handler.ts';
import type { Session } from '../session.ts';
import { put, write } from './replies.ts';

export function deviceGetInfo(session: Session, { body }: Request): number {
  const { argsz } = DeviceInfo.decode(body);
  if (argsz < DeviceInfo.size) {
    throw new WireError('EINVAL', `argsz is ${argsz}`, { call: 'DEVICE_GET_INFO' });
  }
  const { shape } = session.endpoint.function;
  return put(session, DeviceInfo, {
    argsz: DeviceInfo.size,
    flags: DeviceInfoFlag.pci | DeviceInfoFlag.reset,
    numRegions: shape.regions.length,
    numIrqs: shape.irqs.length,
  });
}

export function deviceGetRegionInfo(session: Session, { body }: Request): number {
  const { argsz, index } = RegionInfo.decode(body);
  const served = session.endpoint.function;
  const region = served.region(index);
  const file = session.connection.carriesFds ? served.regionFile(index) : undefined;
  // Whoever is told when the file comes learns beforehand what of it will be mapped.
  const isMappable = file !== undefined || served.mapsLater(index);
  const reply = encodeRegionInfo(
    {
      index,
      size: region.size,
      flags:
        (region.readable ? RegionFlag.read : 0) |
        (region.writable ? RegionFlag.write : 0) |
        (isMappable ? RegionFlag.mmap : 0),
      offset: file === undefined ? 0 : toNumber(file.offset, 'region offset'),
      areas: isMappable ? region.mappable : [],
    },
    argsz,
  );
  // The fd goes with the whole reply only: libvfio-user's client has no room for one in its first, short request.
  const isWhole = RegionInfo.decode(reply).argsz === reply.length;
  if (file !== undefined && isWhole) {
    session.attachFd(file.fd);
  }
  return write(session, reply);
}

export function deviceGetRegionIoFds(session: Session, { body }: Request): number {
  const { argsz, flags, index, count } = RegionIoFds.decode(body);
  if (argsz < RegionIoFds.size || flags !== 0 || count !== 0) {
    throw new WireError('EINVAL', `argsz ${argsz} flags ${flags} count ${count}`, {
      call: 'DEVICE_GET_REGION_IO_FDS',
    });
  }
  session.endpoint.function.region(index);
  return put(session, RegionIoFds, { argsz: RegionIoFds.size, flags: 0, index, count: 0 });
}

export function deviceGetIrqInfo(session: Session, { body }: Request): number {
  const { argsz, index } = IrqInfo.decode(body);
  if (argsz < IrqInfo.size) {
    throw new WireError('EINVAL', `argsz is ${argsz}`, { call: 'DEVICE_GET_IRQ_INFO' });
  }
  const { flags, count } = session.endpoint.function.irq(index);
  return put(session, IrqInfo, { argsz: IrqInfo.size, flags, index, count });
}
