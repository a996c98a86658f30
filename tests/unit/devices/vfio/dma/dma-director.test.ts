import { describe, expect, it } from 'vitest';
import { type DmaWindow, PF_INDEX } from '../../../../../backend/device/physical-device.ts';
import {
  type ContainerMode,
  DmaDirector,
} from '../../../../../backend/devices/vfio/dma/dma-director.ts';
import type { VfioContainer } from '../../../../../backend/devices/vfio/vfio/container.ts';
import type { KernelCalls } from '../../../../../backend/devices/vfio/vfio/kernel-calls.ts';
import { ManualClock } from '../../../../fakes/manual-clock.ts';

class FakeContainer {
  readonly mapped: bigint[] = [];

  async map({ address }: DmaWindow): Promise<void> {
    this.mapped.push(address);
  }

  async unmap({ address }: DmaWindow): Promise<void> {
    this.mapped.splice(this.mapped.indexOf(address), 1);
  }

  async unmapAll(): Promise<void> {
    this.mapped.length = 0;
  }

  async close(): Promise<void> {}
}

function director(mode: ContainerMode): {
  dma: DmaDirector;
  containers: FakeContainer[];
  clock: ManualClock;
} {
  const clock = new ManualClock();
  const containers: FakeContainer[] = [];
  const calls = { fileIdentity: (fd: number) => `file ${fd}` } as unknown as KernelCalls;
  const dma = new DmaDirector({ calls, clock }, mode, async () => {
    containers.push(new FakeContainer());
    return containers.at(-1) as unknown as VfioContainer;
  });
  return { dma, containers, clock };
}

function window(address: bigint): DmaWindow {
  return { address, size: 4096n, fd: 3, fileOffset: 0n, readable: true, writable: true };
}

/** A VF's map waits for the PF's for half a second, and looks again and again. */
function untilRefused(clock: ManualClock): Promise<void> {
  return clock.pass(600, 100);
}

async function openPf(dma: DmaDirector): Promise<void> {
  await dma.containerFor(PF_INDEX);
  await dma.functionOpened(PF_INDEX);
}

async function openVf(dma: DmaDirector, index: number): Promise<void> {
  await dma.containerFor(index);
  await dma.functionOpened(index);
}

describe('guest memory of a PF and its VFs', () => {
  it('is mapped once, in one container, where all see the same', async () => {
    const { dma, containers } = director('shared');
    await openPf(dma);
    await dma.map(PF_INDEX, window(0x1000n));
    dma.expect([{ index: 0, windows: [window(0x1000n)] }]);
    await openVf(dma, 0);
    await dma.map(0, window(0x1000n));
    expect(containers.map(({ mapped }) => mapped)).toEqual([[0x1000n]]);
  });

  it('is mapped in a container of its own for a VF that was told of other memory before it was open', async () => {
    const { dma, containers } = director('shared');
    await openPf(dma);
    await dma.map(PF_INDEX, window(0x1000n));
    dma.expect([{ index: 0, windows: [window(0x2000n)] }]);
    await openVf(dma, 0);
    await dma.map(0, window(0x2000n));
    expect(containers.map(({ mapped }) => mapped)).toEqual([[0x1000n], [0x2000n]]);
  });

  it('is refused to an open VF that asks for memory which the PF does not have', async () => {
    const { dma, clock } = director('shared');
    await openPf(dma);
    await openVf(dma, 0);
    const refused = expect(dma.map(0, window(0x2000n))).rejects.toThrow('--container=per-function');
    await untilRefused(clock);
    await refused;
    expect(dma.failure()?.message).toContain('0x2000');
  });

  it('is forgotten of a VF that is told of anew before its next life', async () => {
    const { dma, containers } = director('per-function');
    await openPf(dma);
    dma.expect([{ index: 0, windows: [window(0x2000n)] }]);
    await openVf(dma, 0);
    await dma.functionClosed(0);
    dma.expect([{ index: 0, windows: [window(0x3000n)] }]);
    await openVf(dma, 0);
    expect(containers.map(({ mapped }) => mapped)).toEqual([[], [0x2000n], [0x3000n]]);
  });

  it('is all unmapped of a client that has gone, and mapped anew for the next', async () => {
    const { dma, containers } = director('per-function');
    await openPf(dma);
    await openVf(dma, 0);
    for (const address of [0x1000n, 0x2000n]) {
      await dma.map(PF_INDEX, window(address));
      await dma.map(0, window(address));
    }
    await dma.unmapAll(0);
    expect(containers.map(({ mapped }) => mapped)).toEqual([[0x1000n, 0x2000n], []]);
    await dma.map(0, window(0x1000n));
    expect(containers.map(({ mapped }) => mapped)).toEqual([[0x1000n, 0x2000n], [0x1000n]]);
  });

  it("stays the PF's where the client of a VF that shares it has gone", async () => {
    const { dma, containers, clock } = director('shared');
    await openPf(dma);
    await dma.map(PF_INDEX, window(0x1000n));
    await openVf(dma, 0);
    await dma.map(0, window(0x1000n));
    await dma.unmapAll(0);
    expect(containers.map(({ mapped }) => mapped)).toEqual([[0x1000n]]);
    await dma.unmapAll(PF_INDEX);
    expect(containers.map(({ mapped }) => mapped)).toEqual([[]]);
    const refused = expect(dma.map(0, window(0x1000n))).rejects.toThrow(
      'that the PF does not have',
    );
    await untilRefused(clock);
    await refused;
  });

  it('is no obstacle any more that the kernel refused, once its client has gone', async () => {
    const { dma, clock } = director('shared');
    await openPf(dma);
    await openVf(dma, 0);
    const refused = expect(dma.map(0, window(0x2000n))).rejects.toThrow();
    await untilRefused(clock);
    await refused;
    await dma.unmapAll(0);
    expect(dma.failure()).toBeUndefined();
  });

  it('has a container for each function where that was asked for', async () => {
    const { dma, containers } = director('per-function');
    await openPf(dma);
    await dma.map(PF_INDEX, window(0x1000n));
    dma.expect([{ index: 0, windows: [window(0x1000n)] }]);
    await openVf(dma, 0);
    expect(containers.map(({ mapped }) => mapped)).toEqual([[0x1000n], [0x1000n]]);
  });
});
