// The process that maps guest memory for devices. Its standard input is a socket: each message is a MapRequest with the
// container's fd and the memory file's. It answers each with a line, several at once where there are several containers,
// and ends with its input. It keeps nothing: pages that were mapped for a device stay pinned without it.

import { Errno } from '../../protocol/errno.ts';
import type { RecordOf } from '../../protocol/record.ts';
import { SocketBuffer } from '../../protocol/unix/fd-socket.ts';
import { closeFd, ioctlAsync, mmap, munmap, SyscallError } from '../../protocol/unix/libc.ts';
import { Reactor } from '../../protocol/unix/reactor.ts';
import { type MapperAnswer, type MapRefusal, MapRequest } from './dma-mapper.ts';
import { answer } from './helper-answer.ts';
import { IommuMap, IommuMapFlag, VfioRequest } from './vfio-abi.ts';

const STDIN = 0;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const TIDY_AFTER_MILLISECONDS = 500;

async function map(
  request: RecordOf<typeof MapRequest>,
  containerFd: number,
  memoryFd: number,
): Promise<MapRefusal | undefined> {
  const { flags, fileOffset, iova, size } = request;
  const length = Number(size);
  const protection = PROT_READ | ((flags & IommuMapFlag.write) !== 0 ? PROT_WRITE : 0);
  let address: bigint;
  try {
    address = mmap(0n, length, protection, MAP_SHARED, memoryFd, Number(fileOffset));
  } catch (error) {
    if (error instanceof SyscallError) return { call: 'mmap', errno: error.errno };
    throw error;
  }
  const argument = IommuMap.encode({ argsz: IommuMap.size, flags, address, iova, size });
  const result = await ioctlAsync(containerFd, VfioRequest.iommuMapDma, argument);
  // That takes a while as well, but nobody has to wait for it.
  setTimeout(() => munmap(address, length), TIDY_AFTER_MILLISECONDS).unref();
  return result < 0 ? { call: 'VFIO_IOMMU_MAP_DMA', errno: -result } : undefined;
}

async function carryOut(request: RecordOf<typeof MapRequest>, fds: number[]): Promise<void> {
  const [containerFd, memoryFd] = fds;
  const refusal = await map(request, containerFd!, memoryFd!);
  for (const fd of fds) closeFd(fd);
  const done: MapperAnswer = { id: request.id, ...refusal };
  answer(done);
}

const reactor = new Reactor();
// Room for one message: the kernel hands out no more than that at once.
const buffer = new SocketBuffer(MapRequest.size, 2);
reactor.watch(STDIN, () => {
  const received = buffer.receive(STDIN);
  if (received === -Errno.EAGAIN) return;
  if (received <= 0) reactor.close();
  else void carryOut(MapRequest.decode(buffer.data), buffer.fds);
});
