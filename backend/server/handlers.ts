// What each vfio-user command does: checks the message, asks the served function, writes the reply's body.
// A handler gives the length of the body it wrote, or LATER; whatever it throws becomes an error reply.

import { WireError } from '../../protocol/errno.ts';
import { decodeGlueEvents, HotplugCommand } from '../../protocol/hotplug/codec.ts';
import { toNumber } from '../../protocol/record.ts';
import { type PeerFileKind, peerFileKind } from '../../protocol/unix/peer-file.ts';
import { UserError } from '../../protocol/user-error.ts';
import { Command } from '../../protocol/vfio-user/commands.ts';
import {
  DeviceFeature,
  DeviceInfo,
  DeviceInfoFlag,
  DmaFlag,
  DmaMap,
  DmaUnmap,
  FeatureFlag,
  IrqInfo,
  IrqSet,
  IrqSetFlag,
  type RegionAccessFields,
  RegionFlag,
  RegionInfo,
  RegionIoFds,
  readRegionAccess,
  UnmapFlag,
  WriteMultiCount,
  WriteMultiEntry,
  writeRegionAccess,
} from '../../protocol/vfio-user/messages.ts';
import {
  type AgreedCapabilities,
  isCloudHypervisor,
  negotiate,
  parseVersion,
} from '../../protocol/vfio-user/negotiation.ts';
import { encodeRegionInfo } from '../../protocol/vfio-user/region-info.ts';
import { type Done, type HostError, type IrqRequest, NO_FILE } from '../device/physical-device.ts';
import { type Hold, whenOver } from '../device/served-function.ts';
import type { Role } from '../hotplug/endpoint.ts';
import { type Handlers, LATER, MAX_DATA_BYTES, type Request, type Session } from './session.ts';

const DEVICE: readonly Role[] = ['device'];
const ACCESS_BYTES = 16;
/** What QEMU takes at most. */
const MAX_MSG_FDS = 16;
const PAGE_BYTES = 4096n;
const WHOLE_ADDRESS_SPACE = 1n << 64n;
const MEMORY_KINDS: ReadonlySet<PeerFileKind> = new Set<PeerFileKind>(['memory', 'disk']);
const EMPTY = new Uint8Array(0);
/** In a millisecond. */
const NANOSECONDS = 1e6;

const access: RegionAccessFields = { offset: 0, region: 0, count: 0 };

export const HANDLERS: Handlers = {
  [Command.version]: { roles: ['new'], handle: version },
  [Command.dmaMap]: { roles: DEVICE, handle: dmaMap },
  [Command.dmaUnmap]: { roles: DEVICE, handle: dmaUnmap },
  [Command.deviceGetInfo]: { roles: DEVICE, handle: deviceGetInfo },
  [Command.deviceGetRegionInfo]: { roles: DEVICE, handle: deviceGetRegionInfo },
  [Command.deviceGetRegionIoFds]: { roles: DEVICE, handle: deviceGetRegionIoFds },
  [Command.deviceGetIrqInfo]: { roles: DEVICE, handle: deviceGetIrqInfo },
  [Command.deviceSetIrqs]: { roles: DEVICE, handle: deviceSetIrqs },
  [Command.regionRead]: { roles: DEVICE, handle: regionRead },
  [Command.regionWrite]: { roles: DEVICE, handle: regionWrite },
  [Command.regionWriteMulti]: { roles: DEVICE, handle: regionWriteMulti },
  [Command.deviceReset]: { roles: DEVICE, handle: deviceReset },
  [Command.deviceFeature]: { roles: DEVICE, handle: deviceFeature },
  [HotplugCommand.getStatus]: { roles: ['device', 'glue', 'observer'], handle: getStatus },
  [HotplugCommand.traceStart]: { roles: ['device', 'glue', 'observer'], handle: traceStart },
  [HotplugCommand.traceStop]: { roles: ['device', 'glue', 'observer'], handle: traceStop },
  [HotplugCommand.glueEvents]: { roles: ['glue'], handle: glueEvents },
};

function version(session: Session, { body }: Request): number {
  const { endpoint } = session;
  const proposal = parseVersion(body);
  const { reply, agreed } = negotiate(proposal, {
    maxMsgFds: MAX_MSG_FDS,
    maxDataXferSize: MAX_DATA_BYTES,
    maxDmaMaps: 65_535,
    pageSizes: Number(PAGE_BYTES),
    // QEMU (minor version 0) takes a yes for leave to hold back every posted write.
    writeMultiple: proposal.minor > 0,
    hotplug: endpoint.hotplug !== undefined,
    status: endpoint.status !== undefined,
  });
  const { hotplug } = agreed;
  const role = roleOf(agreed);
  if (role === 'device') {
    const knowsHotplug = endpoint.native || hotplug !== undefined;
    endpoint.function.attach({
      knowsHotplug,
      seesAllAtOnce: knowsHotplug || isCloudHypervisor(proposal),
    });
  }
  if (hotplug !== undefined) {
    try {
      endpoint.hotplug?.attach(session, hotplug.role);
    } catch (error) {
      if (role === 'device') {
        endpoint.function.detach();
      }
      throw error;
    }
  }
  session.role = role;
  session.agreed = agreed;
  const { observers, name } = endpoint.function;
  observers.session(name, 'agreed', {
    role,
    version: `${proposal.major}.${proposal.minor}`,
    ...agreed,
  });
  return write(session, reply);
}

function roleOf({ hotplug, status }: AgreedCapabilities): Role {
  if (hotplug === undefined) {
    return status === undefined ? 'device' : 'observer';
  }
  return hotplug.role === 'glue' ? 'glue' : 'device';
}

function dmaMap(session: Session, request: Request): number {
  const { argsz, flags, offset, address, size } = DmaMap.decode(request.body);
  if (argsz < DmaMap.size) {
    throw new WireError('EINVAL', `DMA_MAP: argsz is ${argsz}`);
  }
  if (request.fds.length > 1) {
    throw new WireError('EINVAL', `DMA_MAP: ${request.fds.length} fds`);
  }
  const ofFiles = DmaFlag.mmap | DmaFlag.fileIo;
  const known = DmaFlag.read | DmaFlag.write | ofFiles;
  if ((flags & (DmaFlag.read | DmaFlag.write)) === 0 || flags & ~known) {
    throw new WireError('EINVAL', `DMA_MAP: flags 0x${flags.toString(16)} name no access we know`);
  }
  if (request.fds.length === 0 && flags & ofFiles) {
    throw new WireError(
      'EINVAL',
      `DMA_MAP: flags 0x${flags.toString(16)} are about a file, and none came`,
    );
  }
  if (request.fds.length === 1 && (address | size | offset) % PAGE_BYTES !== 0n) {
    throw new WireError('EINVAL', 'DMA_MAP: address, size and offset must be whole 4 KiB pages');
  }
  requireMemory(session, request, address);
  const [fd = NO_FILE] = request.takeFds();
  const window = {
    address,
    size,
    fd,
    fileOffset: offset,
    readable: (flags & DmaFlag.read) !== 0,
    writable: (flags & DmaFlag.write) !== 0,
  };
  return answerWhenDone(session, EMPTY, (done) => session.endpoint.function.mapDma(window, done));
}

/**
 * Only files that answer by themselves are taken for memory: the device thread reads and writes them. QEMU and Cloud
 * Hypervisor survive the refusal, so people are told of it here.
 */
function requireMemory(session: Session, { fds: [fd] }: Request, address: bigint): void {
  if (fd === undefined || MEMORY_KINDS.has(peerFileKind(fd))) {
    return;
  }
  const at = `guest memory at 0x${address.toString(16)}`;
  const what = `${at} is no file in RAM (memfd, tmpfs, hugetlbfs) or on a local disk`;
  session.log.warn(`${session.endpoint.function.name}: ${what}: no device can reach it`);
  session.endpoint.function.failedMaps.add(`${what}: back it with memory-backend-memfd,share=on`);
  throw new WireError('EINVAL', `DMA_MAP: ${what}`);
}

function dmaUnmap(session: Session, { body }: Request): number {
  const { argsz, flags, address, size } = DmaUnmap.decode(body);
  if (argsz < DmaUnmap.size) {
    throw new WireError('EINVAL', `DMA_UNMAP: argsz is ${argsz}`);
  }
  if (flags & ~UnmapFlag.all) {
    throw new WireError('ENOTSUP', `DMA_UNMAP: flags 0x${flags.toString(16)}: no dirty tracking`);
  }
  const all = (flags & UnmapFlag.all) !== 0;
  if (all && (address !== 0n || size !== 0n)) {
    throw new WireError('EINVAL', 'DMA_UNMAP of everything with an address or a size');
  }
  if (!all && size === 0n) {
    throw new WireError('EINVAL', 'DMA_UNMAP: size is 0');
  }
  if (address + size > WHOLE_ADDRESS_SPACE) {
    throw new WireError('EINVAL', 'DMA_UNMAP wraps around');
  }
  const reply = body.slice(0, DmaUnmap.size);
  return answerWhenDone(session, reply, (done) =>
    session.endpoint.function.unmapDma(address, all ? WHOLE_ADDRESS_SPACE : size, done),
  );
}

function deviceGetInfo(session: Session, { body }: Request): number {
  const { argsz } = DeviceInfo.decode(body);
  if (argsz < DeviceInfo.size) {
    throw new WireError('EINVAL', `GET_INFO: argsz is ${argsz}`);
  }
  const { shape } = session.endpoint.function;
  return put(session, DeviceInfo, {
    argsz: DeviceInfo.size,
    flags: DeviceInfoFlag.pci | DeviceInfoFlag.reset,
    numRegions: shape.regions.length,
    numIrqs: shape.irqs.length,
  });
}

function deviceGetRegionInfo(session: Session, { body }: Request): number {
  const { argsz, index } = RegionInfo.decode(body);
  const served = session.endpoint.function;
  const region = served.region(index);
  const file = session.connection.carriesFds ? served.regionFile(index) : undefined;
  const reply = encodeRegionInfo(
    {
      index,
      size: region.size,
      flags:
        (region.readable ? RegionFlag.read : 0) |
        (region.writable ? RegionFlag.write : 0) |
        (file === undefined ? 0 : RegionFlag.mmap),
      offset: file === undefined ? 0 : toNumber(file.offset, 'region offset'),
      areas: file === undefined ? [] : region.mappable,
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

function deviceGetRegionIoFds(session: Session, { body }: Request): number {
  const { argsz, flags, index, count } = RegionIoFds.decode(body);
  if (argsz < RegionIoFds.size || flags !== 0 || count !== 0) {
    throw new WireError(
      'EINVAL',
      `GET_REGION_IO_FDS: argsz ${argsz} flags ${flags} count ${count}`,
    );
  }
  session.endpoint.function.region(index);
  return put(session, RegionIoFds, { argsz: RegionIoFds.size, flags: 0, index, count: 0 });
}

function deviceGetIrqInfo(session: Session, { body }: Request): number {
  const { argsz, index } = IrqInfo.decode(body);
  if (argsz < IrqInfo.size) {
    throw new WireError('EINVAL', `GET_IRQ_INFO: argsz is ${argsz}`);
  }
  const { flags, count } = session.endpoint.function.irq(index);
  return put(session, IrqInfo, { argsz: IrqInfo.size, flags, index, count });
}

function deviceSetIrqs(session: Session, request: Request): number {
  const { argsz, flags, index, start, count } = IrqSet.decode(request.body);
  if (argsz < IrqSet.size) {
    throw new WireError('EINVAL', `SET_IRQS: argsz is ${argsz}`);
  }
  const known = IrqSetFlag.dataGroup | IrqSetFlag.actionGroup;
  if (flags & ~known) {
    throw new WireError('EINVAL', `SET_IRQS: flags 0x${flags.toString(16)}`);
  }
  session.endpoint.function.irq(index);
  for (const fd of request.fds) {
    if (peerFileKind(fd) !== 'eventfd') {
      throw new WireError('EINVAL', `SET_IRQS index ${index}: an fd that is no eventfd`);
    }
  }
  const irqs: IrqRequest = {
    index,
    start,
    count,
    flags,
    ...(flags & IrqSetFlag.dataBool
      ? { bools: [...request.body.subarray(IrqSet.size, IrqSet.size + count)].map(Boolean) }
      : {}),
    eventFds: request.takeFds(),
  };
  session.endpoint.function.setIrqs(irqs);
  return 0;
}

function regionRead(session: Session, { body }: Request): number {
  readRegionAccess(body, access);
  const { offset, region, count } = access;
  checkCount(count);
  const served = session.endpoint.function;
  const hold = served.holdRead(region);
  const answer = hold === undefined ? session.reply : new Uint8Array(ACCESS_BYTES + count);
  const data = answer.subarray(ACCESS_BYTES, ACCESS_BYTES + count);
  served.readRegion(region, offset, data);
  writeRegionAccess(answer, 0, offset, region, count);
  if (hold === undefined) {
    return ACCESS_BYTES + count;
  }
  return answerWhenDone(session, answer, (done) =>
    hold.wait(() => {
      // Again: what is there to read may have changed.
      served.readRegion(region, offset, data);
      done();
    }),
  );
}

function regionWrite(session: Session, { body }: Request): number {
  readRegionAccess(body, access);
  const { offset, region, count } = access;
  checkCount(count);
  if (body.length !== ACCESS_BYTES + count) {
    throw new WireError('EINVAL', `REGION_WRITE of ${count} bytes came with ${body.length - 16}`);
  }
  const data = body.subarray(ACCESS_BYTES);
  const holds = session.endpoint.function.writeRegion(region, offset, data);
  return answerWhenOver(session, body.subarray(0, ACCESS_BYTES), holds);
}

function regionWriteMulti(session: Session, { body }: Request): number {
  if (session.agreed?.writeMultiple !== true) {
    throw new WireError('ENOTSUP', 'REGION_WRITE_MULTI was not negotiated');
  }
  const count = toNumber(WriteMultiCount.decode(body).count, 'number of writes');
  if (body.length !== WriteMultiCount.size + count * WriteMultiEntry.size) {
    throw new WireError('EINVAL', `REGION_WRITE_MULTI of ${count} writes: ${body.length} bytes`);
  }
  const holds: Hold[] = [];
  for (let i = 0; i < count; i++) {
    const at = WriteMultiCount.size + i * WriteMultiEntry.size;
    const entry = WriteMultiEntry.decode(body, at);
    if (entry.count > 8) {
      throw new WireError('EINVAL', `write ${i} has ${entry.count} bytes`);
    }
    const data = at + WriteMultiEntry.offsetOf('data');
    const held = session.endpoint.function.writeRegion(
      entry.region,
      toNumber(entry.offset, 'region offset'),
      body.subarray(data, data + entry.count),
    );
    holds.push(...held);
  }
  return answerWhenOver(session, WriteMultiCount.encode({ count: BigInt(count) }), holds);
}

function deviceReset(session: Session): number {
  warnOfPrivateMemory(session);
  return answerWhenDone(session, EMPTY, (done) => session.endpoint.function.reset(done));
}

/** QEMU resets a device when all of RAM is mapped and before the guest runs: the time to say that none can be reached. */
function warnOfPrivateMemory(session: Session): void {
  const { dma } = session.endpoint.function;
  const isPf = session.endpoint.hotplug !== undefined;
  if (!isPf || session.warnedOfPrivateMemory || dma.size === 0 || dma.hasFiles) {
    return;
  }
  session.warnedOfPrivateMemory = true;
  session.log.warn(
    'the guest memory came without a file: no device can reach it, so DMA will not work. Start QEMU with ' +
      '-object memory-backend-memfd,id=ram0,size=…,share=on -machine memory-backend=ram0',
  );
}

/** No feature is offered: as Linux's VFIO says it, ENOTTY; EINVAL where the request itself makes no sense. */
function deviceFeature(_session: Session, { body }: Request): number {
  const { argsz, flags } = DeviceFeature.decode(body);
  const actions = FeatureFlag.get | FeatureFlag.set | FeatureFlag.probe;
  if (argsz < DeviceFeature.size || (flags & actions) === 0 || flags & ~(actions | 0xffff)) {
    throw new WireError('EINVAL', `DEVICE_FEATURE: argsz ${argsz} flags 0x${flags.toString(16)}`);
  }
  throw new WireError('ENOTTY', `device feature ${flags & FeatureFlag.featureMask} is not offered`);
}

/** The file is the client's: whoever asks for a recording can write where it goes. */
function traceStart(session: Session, request: Request): number {
  checkMayObserve(session);
  if (request.fds.length !== 1) {
    throw new WireError('EINVAL', `TraceStart: ${request.fds.length} fds: it takes the file`);
  }
  const { tracing } = session.endpoint;
  if (tracing === undefined) {
    throw new WireError('ENOTSUP', 'this socket’s function is recorded with its PF');
  }
  if (!MEMORY_KINDS.has(peerFileKind(request.fds[0]!))) {
    throw new WireError('EINVAL', 'TraceStart: a regular file of a plain file system is needed');
  }
  try {
    tracing.start(request.takeFds()[0]!);
  } catch (error) {
    if (error instanceof UserError) {
      throw new WireError('EINVAL', `TraceStart: ${error.message}`);
    }
    throw error;
  }
  return 0;
}

function traceStop(session: Session): number {
  checkMayObserve(session);
  session.endpoint.tracing?.stop();
  return 0;
}

function glueEvents(session: Session, { body }: Request): number {
  const { events, lost } = decodeGlueEvents(body);
  const { observers } = session.endpoint.function;
  if (!observers.isEmpty) {
    observers.glue(
      events.map(({ what, text, at, took }) => ({
        at: Number(at) / NANOSECONDS,
        what,
        text,
        took: Number(took) / NANOSECONDS,
      })),
      lost,
    );
  }
  return 0;
}

function checkMayObserve(session: Session): void {
  if (session.agreed?.status === undefined) {
    throw new WireError('EPERM', 'sriov_status was not negotiated on this connection');
  }
}

function getStatus(session: Session): number {
  checkMayObserve(session);
  return write(session, new TextEncoder().encode(session.endpoint.status?.() ?? '{}'));
}

function checkCount(count: number): void {
  if (count > MAX_DATA_BYTES) {
    throw new WireError('EINVAL', `an access of ${count} bytes: at most ${MAX_DATA_BYTES}`);
  }
}

function write(session: Session, body: Uint8Array): number {
  session.reply.set(body);
  return body.length;
}

function put<T>(
  session: Session,
  layout: {
    readonly size: number;
    encode(value: Readonly<T>, into: Uint8Array, at?: number): Uint8Array;
  },
  value: T,
): number {
  layout.encode(value, session.reply);
  return layout.size;
}

/** Answers when nothing holds the answer back any more, which mostly is at once. */
function answerWhenOver(session: Session, body: Uint8Array, holds: readonly Hold[]): number {
  if (holds.length === 0) {
    return write(session, body);
  }
  return answerWhenDone(session, body.slice(), (done) => whenOver(holds, done));
}

/** Answers at once where the work was done at once, else when it is done; the session takes nothing in between. */
function answerWhenDone(session: Session, body: Uint8Array, start: (done: Done) => void): number {
  let finished: { error: HostError | undefined } | undefined;
  let waiting = false;
  start((error) => {
    if (waiting) {
      session.complete(error, body);
    } else {
      finished = { error };
    }
  });
  if (finished === undefined) {
    waiting = true;
    return LATER;
  }
  if (finished.error !== undefined) {
    throw finished.error;
  }
  return write(session, body);
}
