// Maps guest memory for devices, through a small process of its own (dma-mapper-child.ts). The kernel pins what it maps
// with the memory map of the asking process locked, for up to seconds. In the backend's own process V8 would wait for
// that lock, and with it a guest that reads a register.
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Errno } from '../../protocol/errno.ts';
import { record, u32, u64 } from '../../protocol/record.ts';
import { SocketBuffer, socketPair } from '../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import type { DmaWindow } from '../device/physical-device.ts';
import { type Ended, HelperProcess, type Numbered } from './helper-process.ts';
import { IommuMapFlag } from './vfio-abi.ts';

/** What the process is sent, along with two fds: the container and the memory file. */
export const MapRequest = record(
  { id: u32, flags: u32, fileOffset: u64, iova: u64, size: u64 },
  'MapRequest',
);

/** Which call the kernel refused, and how. */
export interface MapRefusal {
  readonly call: 'mmap' | 'VFIO_IOMMU_MAP_DMA';
  readonly errno: number;
}

export type MapperAnswer = Numbered & Partial<MapRefusal>;

export interface DmaMapper {
  /** Maps a window into a container, in one piece. Resolves with `undefined`, or with what was refused. */
  map(containerFd: number, window: DmaWindow): Promise<MapRefusal | undefined>;
  /** Lets the process end; what is mapped stays mapped. */
  close(): void;
}

const RETRY_MILLISECONDS = 1;
const childPath = fileURLToPath(new URL('./dma-mapper-child.js', import.meta.url));

/** Starts the process. Call it before VFIO files are open. */
export function startDmaMapper(child: string = childPath): DmaMapper {
  const [ours, theirs] = socketPair();
  const helper = new HelperProcess<MapperAnswer>(child, theirs);
  closeFd(theirs);
  const buffer = new SocketBuffer(MapRequest.size, 2);
  return {
    async map(containerFd, window) {
      const { id, answer } = helper.request();
      for (;;) {
        MapRequest.encode(requestFor(id, window), buffer.data);
        const sent = buffer.send(ours, 0, MapRequest.size, [containerFd, window.fd]);
        if (sent > 0) return refusalIn(await answer);
        if (sent !== -Errno.EAGAIN) return { call: 'VFIO_IOMMU_MAP_DMA', errno: -sent };
        // The socket holds no more requests than a few hundred.
        await sleep(RETRY_MILLISECONDS);
      }
    },
    close() {
      closeFd(ours);
      helper.close();
    },
  };
}

function requestFor(id: number, window: DmaWindow) {
  const { fileOffset, address: iova, size, readable, writable } = window;
  const flags = (readable ? IommuMapFlag.read : 0) | (writable ? IommuMapFlag.write : 0);
  return { id, flags, fileOffset, iova, size };
}

function refusalIn(answer: MapperAnswer | Ended): MapRefusal | undefined {
  const { errno } = answer;
  if (errno === undefined) return undefined;
  const call = 'call' in answer && answer.call !== undefined ? answer.call : 'VFIO_IOMMU_MAP_DMA';
  return { call, errno };
}
