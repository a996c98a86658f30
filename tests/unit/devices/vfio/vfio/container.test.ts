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

/** A container whose mapper answers when a test says so. */
async function slowContainer() {
  const clock = new ManualClock();
  const closed: number[] = [];
  const answers: ((refusal: MapRefusal | undefined) => void)[] = [];
  const later = (): Promise<MapRefusal | undefined> =>
    new Promise((resolve) => answers.push(resolve));
  const calls = {
    open: async () => CONTAINER_FD,
    close: async (fd: number) => void closed.push(fd),
    ioctl: (_: number, request: number) =>
      request === VfioRequest.getApiVersion ? VFIO_API_VERSION : 1,
    fileIdentity: () => 'guest memory',
  } as unknown as KernelCalls;
  const container = await VfioContainer.open(calls, {
    dev: '/dev',
    memlock: undefined,
    mapper: { map: later, unmap: later, close: () => {} },
    pinned: new PinnedMemory(1n << 30n, calls.fileIdentity),
    clock,
  });
  return { container, clock, closed, answers };
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
