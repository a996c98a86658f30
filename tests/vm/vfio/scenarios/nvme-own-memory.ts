// Scenario: the VFs see other memory than the PF at the same addresses, with the containers of `argv[2]`. What each
// function writes by DMA lands in its own memory, and in nobody else's.
import { strict as assert } from 'node:assert';
import { PF_INDEX } from '../../../../backend/device/physical-device.ts';
import type { ContainerMode } from '../../../../backend/devices/vfio/dma/dma-director.ts';
import { createMemfd, readAt } from '../../../../protocol/unix/memory.ts';
import { bringUp, deviceLink, NvmeDriver, namesOf, shareResources } from './nvme.ts';
import { functionOf, openPf, step } from './scenario.ts';

const ADDRESS = 0x10_0000;
const SIZE = 0x1_0000;
const mode = process.argv[2] as ContainerMode;

const device = await step(`the PF is opened, containers: ${mode}`, () =>
  openPf({ container: mode }),
);
const memoryOf = (name: string) => {
  const fd = createMemfd(name, SIZE);
  const window = {
    address: BigInt(ADDRESS),
    size: BigInt(SIZE),
    fd,
    fileOffset: 0n,
    readable: true,
    writable: true,
  };
  return { fd, window };
};
const contentOf = (fd: number): Buffer => {
  const bytes = Buffer.alloc(SIZE);
  assert.equal(readAt(fd, bytes, 0), SIZE);
  return bytes;
};
const ofPf = memoryOf('pf');
const ofVfs = [memoryOf('vf0'), memoryOf('vf1')];

const driverOf = (handle: typeof device.pf, fd: number) =>
  new NvmeDriver(deviceLink(functionOf(device, handle)), { fd, fileOffset: 0, address: ADDRESS });

const pf = driverOf(device.pf, ofPf.fd);
await step('the PF does DMA to its memory', async () => {
  await device.mapDma(PF_INDEX, ofPf.window);
  await pf.start();
  assert.equal(namesOf(await pf.identify()).serial, 'LAB-1');
  await shareResources(pf);
});
for (const round of [1, 2]) {
  const handles = await step(`VFs with memory of their own are made, round ${round}`, async () => {
    await device.expectMemory(ofVfs.map(({ window }, index) => ({ index, windows: [window] })));
    return device.createVfs(2);
  });
  for (const [index, handle] of handles.entries()) {
    await bringUp(pf, index);
    await step(`VF ${index} does DMA to its memory, and to no other`, async () => {
      const others = [ofPf.fd, ofVfs[1 - index]!.fd];
      const before = others.map(contentOf);
      const vf = driverOf(handle, ofVfs[index]!.fd);
      await vf.start();
      assert.equal(namesOf(await vf.identify()).model, 'QEMU NVMe Ctrl');
      assert.deepEqual(others.map(contentOf), before);
    });
  }
  await step('the VFs go', async () => {
    assert.deepEqual(await device.releaseVfs(), []);
    await device.destroyVfs();
  });
}
await step('the PF goes on in its memory', () => pf.identify());
await step('everything is given back', () => device.close());
