import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { DmaWindow } from '../../../../../backend/device/physical-device.ts';
import {
  type DmaMapper,
  startDmaMapper,
} from '../../../../../backend/devices/vfio/dma/dma-mapper.ts';
import { Errno } from '../../../../../protocol/errno.ts';
import { createEventFd } from '../../../../../protocol/unix/eventfd.ts';
import { closeFd } from '../../../../../protocol/unix/libc.ts';
import { createMemfd } from '../../../../../protocol/unix/memory.ts';
import { processClock } from '../../../../../protocol/unix/process-clock.ts';
import { SOON } from '../../../../patience.ts';

const child = resolve('dist/backend/devices/vfio/dma/dma-mapper-child.js');
const BYTES = 0x10000;

/** Processes that run the mapper's program for this one. */
function mappers(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const status = readFileSync(`/proc/${pid}/status`, 'utf8');
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        return status.includes(`\nPPid:\t${process.pid}\n`) && command.includes(child);
      } catch {
        return false;
      }
    });
}

function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`);
}

describe('the process that maps guest memory', () => {
  let mapper: DmaMapper;
  let memory: number;
  // Not a VFIO container: Linux refuses the ioctl with ENOTTY, once memory was found fit.
  let container: number;

  beforeEach(() => {
    mapper = startDmaMapper(processClock, child);
    memory = createMemfd('guest', BYTES);
    container = createEventFd();
  });
  afterEach(async () => {
    mapper.close();
    closeFd(memory);
    closeFd(container);
    await vi.waitFor(() => expect(mappers()).toEqual([]), SOON);
  });

  const window = (change: Partial<DmaWindow> = {}): DmaWindow => ({
    address: 0x1000n,
    size: BigInt(BYTES),
    fd: memory,
    fileOffset: 0n,
    readable: true,
    writable: true,
    ...change,
  });

  it("gives the kernel's answer to the map", async () => {
    const refusal = { call: 'VFIO_IOMMU_MAP_DMA', errno: Errno.ENOTTY };
    expect(await mapper.map(container, window())).toEqual(refusal);
  });

  it("gives the kernel's answer to the unmap", async () => {
    const refusal = { call: 'VFIO_IOMMU_UNMAP_DMA', errno: Errno.ENOTTY };
    expect(await mapper.unmap(container, window(), BigInt(BYTES))).toEqual(refusal);
  });

  it('tells memory that cannot be mapped from a map that is refused', async () => {
    const offset = window({ fileOffset: 0x123n });
    expect(await mapper.map(container, offset)).toEqual({ call: 'mmap', errno: Errno.EINVAL });
    const noMemory = window({ fd: container });
    expect(await mapper.map(container, noMemory)).toEqual({ call: 'mmap', errno: Errno.ENODEV });
  });

  it('answers each of many at once', async () => {
    const windows = Array.from({ length: 1000 }, (_, index) =>
      window(index % 2 === 0 ? {} : { fileOffset: 1n }),
    );
    const answers = await Promise.all(windows.map((each) => mapper.map(container, each)));
    const calls = answers.map((answer) => answer?.call);
    expect(calls).toEqual(windows.map((_, i) => (i % 2 === 0 ? 'VFIO_IOMMU_MAP_DMA' : 'mmap')));
  });

  it('keeps no fd and no memory of what it was given', async () => {
    await mapper.map(container, window());
    const [pid] = mappers();
    const files = openFiles(pid!);
    for (let round = 0; round < 20; round++) {
      await mapper.map(container, window(round % 2 === 0 ? {} : { fileOffset: 1n }));
    }
    expect(openFiles(pid!)).toEqual(files);
    const maps = () => readFileSync(`/proc/${pid}/maps`, 'utf8');
    await vi.waitFor(() => expect(maps()).not.toContain('memfd:guest'), SOON);
  });

  it('ended by somebody, refuses with EPIPE and does not wait', async () => {
    await mapper.map(container, window());
    process.kill(mappers()[0]!, 'SIGKILL');
    await vi.waitFor(() => expect(mappers()).toEqual([]), SOON);
    const errno = Errno.EPIPE;
    const refusal = { call: 'VFIO_IOMMU_MAP_DMA', errno };
    expect(await mapper.map(container, window())).toEqual(refusal);
    const unmapping = { call: 'VFIO_IOMMU_UNMAP_DMA', errno };
    expect(await mapper.unmap(container, window(), BigInt(BYTES))).toEqual(unmapping);
  });
});
