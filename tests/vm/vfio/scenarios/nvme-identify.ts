// Scenario: an NVMe PF and its VFs do real DMA through the IOMMU into guest memory and signal by MSI-X; it works again
// after a reset, and after VFs were disabled and enabled.
import { strict as assert } from 'node:assert';
import { PF_INDEX } from '../../../../backend/device/physical-device.ts';
import { createMemfd } from '../../../../protocol/unix/memory.ts';
import { bringUp, deviceLink, NVME_MEMORY, NvmeDriver, namesOf, shareResources } from './nvme.ts';
import { finished, functionOf, openPf, step } from './scenario.ts';

const ADDRESS = 0x10_0000;
const VFS = 2;

const device = await step('the PF is opened', () => openPf());
const SIZE = 0x10_0000;
const fd = createMemfd('guest', SIZE);
const window = {
  address: BigInt(ADDRESS),
  size: BigInt(SIZE),
  fd,
  fileOffset: 0n,
  readable: true,
  writable: true,
};
await step('guest memory is mapped', () => device.mapDma(PF_INDEX, window));
const memoryOf = (index: number) => {
  const fileOffset = (index + 1) * NVME_MEMORY;
  return { fd, fileOffset, address: ADDRESS + fileOffset };
};

const pf = functionOf(device, device.pf);
const driver = new NvmeDriver(deviceLink(pf), memoryOf(PF_INDEX));
await step('the PF identifies itself by DMA and MSI-X', async () => {
  await driver.start();
  const names = namesOf(await driver.identify());
  assert.deepEqual(names, { serial: 'LAB-1', model: 'QEMU NVMe Ctrl' });
  assert.equal(driver.interrupts, 1);
});

await step('the PF hands its resources to the VFs', () => shareResources(driver));

for (const round of [1, 2]) {
  const handles = await step(`${VFS} VFs are made, round ${round}`, () => device.createVfs(VFS));
  for (const [index, handle] of handles.entries()) {
    await step(`the PF brings VF ${index} up`, () => bringUp(driver, index));
    await step(`VF ${index} identifies itself by DMA and MSI-X`, async () => {
      const vf = new NvmeDriver(deviceLink(functionOf(device, handle)), memoryOf(index));
      await vf.start();
      assert.equal(namesOf(await vf.identify()).model, 'QEMU NVMe Ctrl');
      assert.equal(vf.interrupts, 1);
    });
  }
  await step('the VFs go', async () => {
    assert.deepEqual(await device.releaseVfs(), []);
    await device.destroyVfs();
  });
}

await step('the PF works again after its reset', async () => {
  await finished((done) => pf.reset(done));
  await driver.start();
  assert.equal(namesOf(await driver.identify()).serial, 'LAB-1');
});

await step('memory that was unmapped is out of the reach of the device', async () => {
  await device.unmapDma(PF_INDEX, window);
  await assert.rejects(driver.identify());
});
await step('everything is given back', () => device.close());
