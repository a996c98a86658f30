import { describe, expect, it } from 'vitest';
import type { DmaWindow } from '../../../../../backend/device/physical-device.ts';
import type { MapRefusal } from '../../../../../backend/devices/vfio/dma/dma-mapper.ts';
import { PinnedMemory } from '../../../../../backend/devices/vfio/dma/pinned-memory.ts';
import { VFIO_API_VERSION, VfioRequest } from '../../../../../backend/devices/vfio/vfio/abi.ts';
import { VfioContainer } from '../../../../../backend/devices/vfio/vfio/container.ts';
import type { KernelCalls } from '../../../../../backend/devices/vfio/vfio/kernel-calls.ts';
import { ManualClock } from '../../../../fakes/manual-clock.ts';

const CONTAINER_FD = 40;
const WINDOW: DmaWindow = {
  address: 0n,
  size: 4096n,
  fd: 3,
  fileOffset: 0n,
  readable: true,
  writable: true,
};

/** What the mapper was asked to unmap: address, size, and how much of that was mapped. */
type Unmapped = [address: bigint, size: bigint, mapped: bigint];

/** A container whose mapper answers when a test says so. */
async function slowContainer() {
  const clock = new ManualClock();
  const closed: number[] = [];
  const answers: ((refusal: MapRefusal | undefined) => void)[] = [];
  const unmapped: Unmapped[] = [];
  const later = (): Promise<MapRefusal | undefined> =>
    new Promise((resolve) => answers.push(resolve));
  const calls = {
    open: async () => CONTAINER_FD,
    close: async (fd: number) => void closed.push(fd),
    ioctl: (_: number, request: number) =>
      request === VfioRequest.getApiVersion ? VFIO_API_VERSION : 1,
    fileIdentity: () => 'guest memory',
  } as unknown as KernelCalls;
  const pinned = new PinnedMemory(1n << 30n, calls.fileIdentity);
  const container = await VfioContainer.open(calls, {
    dev: '/dev',
    memlock: undefined,
    mapper: {
      map: later,
      unmap: (_, { address, size }, mapped) => {
        unmapped.push([address, size, mapped]);
        return later();
      },
      close: () => {},
    },
    pinned,
    clock,
  });
  return { container, clock, closed, answers, unmapped, pinned };
}

/** Lets everything happen that can. */
const settle = (): Promise<void> => new Promise(setImmediate);

describe('a container that is closed', () => {
  it('waits for the map at hand, and for nothing more', async () => {
    const { container, clock, closed, answers } = await slowContainer();
    const mapped = container.map(WINDOW);
    await settle();
    const end = container.close();
    await settle();
    expect(closed).toEqual([]);
    answers[0]!(undefined);
    await Promise.all([mapped, end]);
    expect(closed).toEqual([CONTAINER_FD]);
    expect(clock.pending).toBe(0);
  });

  it('does not wait for ever for a map that never ends', async () => {
    const { container, clock, closed, answers } = await slowContainer();
    const hung = container.map(WINDOW);
    const behind = container.map({ ...WINDOW, address: 4096n, fileOffset: 4096n });
    await settle();
    const end = container.close();
    await settle();
    clock.elapse(5000);
    await end;
    expect(closed).toEqual([CONTAINER_FD]);
    // The kernel lets go at last: what waited behind must not use the fd's number again.
    answers[0]!(undefined);
    await hung;
    await expect(behind).rejects.toThrow('the address space was closed');
    expect(answers).toHaveLength(1);
  });
});

describe('a container of which all is unmapped', () => {
  const windows = [0x2000n, 0n, 0x5000n].map((address) => ({ ...WINDOW, address }));

  it('does so in one call, however many mappings there are, behind those that are under way', async () => {
    const { container, answers, unmapped, pinned } = await slowContainer();
    const mapped = windows.map((window) => container.map(window));
    const all = container.unmapAll();
    const anew = container.map(WINDOW);
    for (let answer = 0; answer < windows.length; answer++) {
      await settle();
      answers[answer]!(undefined);
    }
    await Promise.all(mapped);
    await settle();
    expect(unmapped).toEqual([[0n, 0x6000n, 0x3000n]]);
    answers[3]!(undefined);
    await all;
    expect(pinned.bytes).toBe(0n);
    await settle();
    answers[4]!(undefined);
    await anew;
    expect(pinned.bytes).toBe(4096n);
  });

  it('asks for nothing where nothing is mapped', async () => {
    const { container, unmapped } = await slowContainer();
    await container.unmapAll();
    expect(unmapped).toEqual([]);
  });
});
