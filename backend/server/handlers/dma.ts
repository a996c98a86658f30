// DMA_MAP and DMA_UNMAP: the client's memory, as the device may reach it.

import { WireError } from '../../../protocol/errno.ts';
import { PAGE_BYTES } from '../../../protocol/page.ts';
import { isPlainFile } from '../../../protocol/unix/peer-file.ts';
import { DmaFlag, DmaMap, DmaUnmap, UnmapFlag } from '../../../protocol/vfio-user/messages.ts';
import { NO_FILE } from '../../device/physical-device.ts';
import type { Request } from '../handler.ts';
import type { Session } from '../session.ts';
import { answerWhenDone, EMPTY } from './replies.ts';

const WHOLE_ADDRESS_SPACE = 1n << 64n;

export function dmaMap(session: Session, request: Request): number {
  const { argsz, flags, offset, address, size } = DmaMap.decode(request.body);
  if (argsz < DmaMap.size) {
    throw new WireError('EINVAL', `argsz is ${argsz}`, { call: 'DMA_MAP' });
  }
  if (request.fds.length > 1) {
    throw new WireError('EINVAL', `${request.fds.length} fds`, { call: 'DMA_MAP' });
  }
  const ofFiles = DmaFlag.mmap | DmaFlag.fileIo;
  const known = DmaFlag.read | DmaFlag.write | ofFiles;
  if ((flags & (DmaFlag.read | DmaFlag.write)) === 0 || flags & ~known) {
    throw new WireError('EINVAL', `flags 0x${flags.toString(16)} name no access we know`, {
      call: 'DMA_MAP',
    });
  }
  if (request.fds.length === 0 && flags & ofFiles) {
    throw new WireError('EINVAL', `flags 0x${flags.toString(16)} are about a file, and none came`, {
      call: 'DMA_MAP',
    });
  }
  if (request.fds.length === 1 && (address | size | offset) % BigInt(PAGE_BYTES) !== 0n) {
    throw new WireError('EINVAL', 'address, size and offset must be whole 4 KiB pages', {
      call: 'DMA_MAP',
    });
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
  if (fd === undefined || isPlainFile(fd)) {
    return;
  }
  const at = `guest memory at 0x${address.toString(16)}`;
  const what = `${at} is no file in RAM (memfd, tmpfs, hugetlbfs) or on a local disk`;
  session.log.warn(`${session.endpoint.function.name}: ${what}: no device can reach it`);
  session.endpoint.function.memory.failedMaps.add(
    `${what}: back it with memory-backend-memfd,share=on`,
  );
  throw new WireError('EINVAL', what, { call: 'DMA_MAP' });
}

export function dmaUnmap(session: Session, { body }: Request): number {
  const { argsz, flags, address, size } = DmaUnmap.decode(body);
  if (argsz < DmaUnmap.size) {
    throw new WireError('EINVAL', `argsz is ${argsz}`, { call: 'DMA_UNMAP' });
  }
  if (flags & ~UnmapFlag.all) {
    throw new WireError('ENOTSUP', `flags 0x${flags.toString(16)}: no dirty tracking`, {
      call: 'DMA_UNMAP',
    });
  }
  const all = (flags & UnmapFlag.all) !== 0;
  if (all && (address !== 0n || size !== 0n)) {
    throw new WireError('EINVAL', 'all is unmapped without an address or a size', {
      call: 'DMA_UNMAP',
    });
  }
  if (!all && size === 0n) {
    throw new WireError('EINVAL', 'size is 0', { call: 'DMA_UNMAP' });
  }
  if (address + size > WHOLE_ADDRESS_SPACE) {
    throw new WireError('EINVAL', 'it wraps around', { call: 'DMA_UNMAP' });
  }
  const reply = body.slice(0, DmaUnmap.size);
  return answerWhenDone(session, reply, (done) =>
    session.endpoint.function.unmapDma(address, all ? WHOLE_ADDRESS_SPACE : size, done, (rest) =>
      session.goOnLater(rest),
    ),
  );
}
