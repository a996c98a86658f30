// Guest memory in huge pages, cut as QEMU cuts it: windows that begin and end in the middle of a page. Needs root, or pages
// that are free (`sysctl vm.nr_hugepages=8`).

import { ftruncateSync, readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startDmaMapper } from '../../backend/devices/vfio/dma/dma-mapper.ts';
import { Errno } from '../../protocol/errno.ts';
import { createEventFd } from '../../protocol/unix/eventfd.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { createMemfd, writeAt } from '../../protocol/unix/memory.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { HUGE_PAGE, HugeMemory } from '../fakes/huge-memory.ts';
import { Backend } from './backend.ts';
import { copy, DmaStatus, turnOn } from './loopback-device.ts';

/** What QEMU maps first: RAM below the VGA window, and behind the ROMs. */
const LOW_END = 0xa0000;
const HIGH_START = 0x100000;

const memory = HugeMemory.open();
afterAll(() => memory?.close());

describe.skipIf(memory === undefined)('memory in huge pages', () => {
  const { fd, bytes } = memory ?? { fd: -1, bytes: new Uint8Array(0) };

  it('is written by fd as other files are, across pages, and up to its end', () => {
    const at = HUGE_PAGE - 3;
    expect(writeAt(fd, Uint8Array.of(1, 2, 3, 4, 5, 6), at)).toBe(6);
    expect([...bytes.subarray(at - 1, at + 7)]).toEqual([0, 1, 2, 3, 4, 5, 6, 0]);
    expect(writeAt(fd, Uint8Array.of(7, 8), bytes.length - 1)).toBe(1);
    expect(bytes.at(-1)).toBe(7);
    expect(writeAt(fd, Uint8Array.of(9), bytes.length)).toBe(0);
  });

  it('keeps nothing mapped of what is written', () => {
    const maps = () => readFileSync('/proc/self/maps', 'utf8').split('/memfd:huge-guest').length;
    const before = maps();
    writeAt(fd, Uint8Array.of(1), 5);
    expect(maps()).toBe(before);
  });

  it('whose owner shrinks it while it is written ends nobody', () => {
    const shrunk = createMemfd('shrinking', HUGE_PAGE, { hugePages: true, resizable: true });
    ftruncateSync(shrunk, 0);
    expect(writeAt(shrunk, Uint8Array.of(1), 0)).toBe(0);
    closeFd(shrunk);
  });

  describe('behind a loopback device', () => {
    let backend: Backend;
    let client: VfioUserClient;
    beforeAll(async () => {
      backend = await Backend.start();
      client = await backend.connect();
      await client.reset();
      await turnOn(client);
      const low = { address: 0n, size: BigInt(LOW_END), fd, fileOffset: 0n };
      const size = BigInt(bytes.length - HIGH_START);
      const high = { address: 0x1_0000_0000n, size, fd, fileOffset: BigInt(HIGH_START) };
      await client.mapDma(low);
      await client.mapDma(high);
    });
    afterAll(() => backend.stop());

    it('is copied from and to', async () => {
      bytes.set([1, 2, 3, 4, 5], LOW_END - 5);
      const to = HUGE_PAGE - HIGH_START - 2;
      const status = await copy(client, BigInt(LOW_END - 5), 0x1_0000_0000n + BigInt(to), 5);
      expect(status).toBe(DmaStatus.done);
      expect([...bytes.subarray(HUGE_PAGE - 2, HUGE_PAGE + 3)]).toEqual([1, 2, 3, 4, 5]);
    });
  });

  it.each([
    ['from the start', 0, LOW_END],
    ['from within a page', HIGH_START, HUGE_PAGE],
    ['one 4 KiB page at the end of a huge one', HUGE_PAGE - 4096, 4096],
  ])('is mapped for hardware %s, and let go of', async (_, offset, size) => {
    const mapper = startDmaMapper(
      processClock,
      resolve('dist/backend/devices/vfio/dma/dma-mapper-child.js'),
    );
    // Not a VFIO container: Linux refuses the ioctl with ENOTTY, once memory was found fit.
    const container = createEventFd();
    const window = { address: 0x1000n, size: BigInt(size), fd, fileOffset: BigInt(offset) };
    const answer = await mapper.map(container, { ...window, readable: true, writable: true });
    expect(answer).toEqual({ call: 'VFIO_IOMMU_MAP_DMA', errno: Errno.ENOTTY });
    const mapped = () => childMaps().filter((maps) => maps.includes('/memfd:huge-guest'));
    await vi.waitFor(() => expect(mapped()).toEqual([]), 5000);
    mapper.close();
    closeFd(container);
  });
});

/** What is mapped in the processes that this one has started. */
function childMaps(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const isChild = readFileSync(`/proc/${pid}/status`, 'utf8').includes(
          `\nPPid:\t${process.pid}\n`,
        );
        return isChild ? [readFileSync(`/proc/${pid}/maps`, 'utf8')] : [];
      } catch {
        return [];
      }
    });
}
