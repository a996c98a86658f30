// Maps and unmaps guest memory for devices, through a small process of its own (dma-mapper-child.ts). The kernel pins what
// it maps with the memory map of the asking process locked, for up to seconds. In the backend's own process V8 would wait
// for that lock, and with it a guest that reads a register. Before Linux 6.0 only the process that mapped may unmap.
import { fileURLToPath } from 'node:url';
import type { Clock } from '../../../../protocol/clock.ts';
import { Errno } from '../../../../protocol/errno.ts';
import { type RecordOf, record, u32, u64 } from '../../../../protocol/record.ts';
import { pause } from '../../../../protocol/retry.ts';
import { socketPair } from '../../../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import { SocketBuffer } from '../../../../protocol/unix/socket-buffer.ts';
import type { DmaWindow } from '../../../device/physical-device.ts';
import { type Ended, HelperProcess, type Numbered } from '../helper-process.ts';
import { IommuMapFlag } from '../vfio/abi.ts';

/**
 * What the process is sent, along with the container's fd and, to map, the memory file's. `mapped`: how many bytes of the range
 * are mapped, where it is unmapped.
 */
export const MapperRequest = record(
  { id: u32, flags: u32, fileOffset: u64, iova: u64, size: u64, mapped: u64 },
  'MapperRequest',
);

/** Which call the kernel refused, and how. */
export interface MapRefusal {
  readonly call: 'mmap' | 'VFIO_IOMMU_MAP_DMA' | 'VFIO_IOMMU_UNMAP_DMA';
  readonly errno: number;
}

export type MapperAnswer = Numbered & Partial<MapRefusal>;

export interface DmaMapper {
  /** Maps a window into a container, in one piece. Resolves with `undefined`, or with what was refused. */
  map(containerFd: number, window: DmaWindow): Promise<MapRefusal | undefined>;
  /** Unmaps all mappings that lie in a range, `mapped` bytes. Resolves likewise; ENOENT where it was not so much. */
  unmap(
    containerFd: number,
    range: Pick<DmaWindow, 'address' | 'size'>,
    mapped: bigint,
  ): Promise<MapRefusal | undefined>;
  /** Lets the process end; what is mapped stays mapped. */
  close(): void;
}

const RETRY_MILLISECONDS = 1;
const childPath = fileURLToPath(new URL('./dma-mapper-child.js', import.meta.url));

/** Starts the process. Call it before VFIO files are open. */
export function startDmaMapper(clock: Clock, child: string = childPath): DmaMapper {
  const [ours, theirs] = socketPair();
  const helper = new HelperProcess<MapperAnswer>(child, theirs);
  closeFd(theirs);
  const buffer = new SocketBuffer(MapperRequest.size, 2);

  async function ask(
    call: MapRefusal['call'],
    fds: readonly number[],
    content: Omit<RecordOf<typeof MapperRequest>, 'id'>,
  ): Promise<MapRefusal | undefined> {
    const { id, answer } = helper.request();
    for (;;) {
      MapperRequest.encode({ id, ...content }, buffer.data);
      const sent = buffer.send(ours, 0, MapperRequest.size, fds);
      if (sent > 0) {
        return refusalIn(await answer, call);
      }
      if (sent !== -Errno.EAGAIN) {
        return { call, errno: -sent };
      }
      // The socket holds no more requests than a few hundred.
      await pause(clock, RETRY_MILLISECONDS);
    }
  }

  return {
    map(containerFd, { fd, fileOffset, address: iova, size, readable, writable }) {
      const flags = (readable ? IommuMapFlag.read : 0) | (writable ? IommuMapFlag.write : 0);
      const content = { flags, fileOffset, iova, size, mapped: size };
      return ask('VFIO_IOMMU_MAP_DMA', [containerFd, fd], content);
    },
    unmap(containerFd, { address: iova, size }, mapped) {
      const content = { flags: 0, fileOffset: 0n, iova, size, mapped };
      return ask('VFIO_IOMMU_UNMAP_DMA', [containerFd], content);
    },
    close() {
      closeFd(ours);
      helper.close();
    },
  };
}

/** `call`: what the request comes to, where the answer does not say. */
function refusalIn(answer: MapperAnswer | Ended, call: MapRefusal['call']): MapRefusal | undefined {
  const { errno } = answer;
  if (errno === undefined) {
    return undefined;
  }
  return { call: ('call' in answer ? answer.call : undefined) ?? call, errno };
}
