// The process that maps guest memory for devices. Its standard input is a socket: each message is a MapperRequest with the
// container's fd and, to map, the memory file's. It answers each with a line, several at once where there are several
// containers, and ends with its input. Pages that were mapped for a device stay pinned without a mapping here.

import { Errno } from '../../../../protocol/errno.ts';
import { PAGE_BYTES } from '../../../../protocol/page.ts';
import type { RecordOf } from '../../../../protocol/record.ts';
import { type BlockMapping, mapBlocks } from '../../../../protocol/unix/block-mapping.ts';
import { closeFd, ioctlAsync } from '../../../../protocol/unix/libc.ts';
import { backgroundClock } from '../../../../protocol/unix/process-clock.ts';
import { SocketBuffer } from '../../../../protocol/unix/socket-buffer.ts';
import { SyscallError } from '../../../../protocol/unix/syscall-error.ts';
import { watchFd } from '../../../../protocol/unix/watch-fd.ts';
import { answer } from '../helper-answer.ts';
import { IommuMap, IommuMapFlag, IommuUnmap, VfioRequest } from '../vfio/abi.ts';
import { type MapperAnswer, MapperRequest, type MapRefusal } from './dma-mapper.ts';

const STDIN = 0;
const TIDY_AFTER_MILLISECONDS = 500;

async function map(
  request: RecordOf<typeof MapperRequest>,
  containerFd: number,
  memoryFd: number,
): Promise<MapRefusal | undefined> {
  const { flags, fileOffset, iova, size } = request;
  // It would be mapped from its page's start on, and the device would see other bytes than it was told.
  if (fileOffset % BigInt(PAGE_BYTES) !== 0n) {
    return { call: 'mmap', errno: Errno.EINVAL };
  }
  let mapping: BlockMapping;
  try {
    mapping = mapBlocks({
      fd: memoryFd,
      offset: Number(fileOffset),
      length: Number(size),
      write: (flags & IommuMapFlag.write) !== 0,
    });
  } catch (error) {
    if (error instanceof SyscallError) {
      return { call: 'mmap', errno: error.errno };
    }
    throw error;
  }
  const { address } = mapping;
  const argument = IommuMap.encode({ argsz: IommuMap.size, flags, address, iova, size });
  const result = await ioctlAsync(containerFd, VfioRequest.iommuMapDma, argument);
  // That takes a while as well, but nobody has to wait for it.
  // biome-ignore lint/plugin: a program of its own, and nothing else of it waits
  backgroundClock.after(TIDY_AFTER_MILLISECONDS, () => tidy(mapping));
  return result < 0 ? { call: 'VFIO_IOMMU_MAP_DMA', errno: -result } : undefined;
}

/** A mapping that stays keeps the guest's pages for as long as this process lives: people are told. */
function tidy(mapping: BlockMapping): void {
  try {
    mapping.unmap();
  } catch (error) {
    process.stderr.write(`the process that maps guest memory: ${(error as Error).message}\n`);
  }
}

async function unmap(
  { iova, size, mapped }: RecordOf<typeof MapperRequest>,
  containerFd: number,
): Promise<MapRefusal | undefined> {
  const call = 'VFIO_IOMMU_UNMAP_DMA';
  const argument = IommuUnmap.encode({ argsz: IommuUnmap.size, flags: 0, iova, size });
  const result = await ioctlAsync(containerFd, VfioRequest.iommuUnmapDma, argument);
  if (result < 0) {
    return { call, errno: -result };
  }
  // The kernel tells how much it has unmapped, and calls that a success whatever it was.
  return IommuUnmap.decode(argument).size === mapped ? undefined : { call, errno: Errno.ENOENT };
}

async function carryOut(request: RecordOf<typeof MapperRequest>, fds: number[]): Promise<void> {
  const [containerFd, memoryFd] = fds;
  const refusal = await (memoryFd === undefined
    ? unmap(request, containerFd!)
    : map(request, containerFd!, memoryFd));
  for (const fd of fds) {
    closeFd(fd);
  }
  const done: MapperAnswer = { id: request.id, ...refusal };
  answer(done);
}

// Room for one message: the kernel hands out no more than that at once.
const buffer = new SocketBuffer(MapperRequest.size, 2);
const stop = watchFd(STDIN, () => {
  const received = buffer.receive(STDIN);
  if (received === -Errno.EAGAIN) {
    return;
  }
  if (received <= 0) {
    stop();
  } else {
    void carryOut(MapperRequest.decode(buffer.data), buffer.fds);
  }
});
