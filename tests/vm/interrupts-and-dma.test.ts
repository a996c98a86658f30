// Interrupts and DMA of PF and VFs, driven from user space in a guest that has a virtual IOMMU, by its own vfio-pci:
// MSI-X through interrupt remapping, DMA through the IOMMU. MSI-X is enabled once; resets must not cost it. The guest's memory
// is in huge pages, in the middle of which what QEMU maps begins and ends.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { keepHugePages } from './huge-pages.ts';
import { MEMORY_MEGABYTES, SriovGuest } from './sriov-guest.ts';

const VFS = 3;
const BUS_MASTER_OFF = 3;

let guest: SriovGuest;
let giveBackPages = (): void => {};

beforeAll(async () => {
  giveBackPages = keepHugePages(MEMORY_MEGABYTES);
  guest = await SriovGuest.boot({ iommu: true, hugePages: true });
});

afterAll(async () => {
  await guest?.end();
  giveBackPages();
});

async function drive(address: string, ...steps: string[]): Promise<string[]> {
  return (await guest.vm.check(`pci-function drive ${address} ${steps.join(' ')}`)).split('\n');
}

it('the PF is in an IOMMU group of its own', async () => {
  await guest.bindDriver('vfio-pci');
  expect(await guest.vm.check(`ls ${guest.sysfs}/iommu_group/devices`)).toBe(guest.pf);
});

it('every MSI-X vector of the PF interrupts, and no other with it', async () => {
  const vectors = [0, 1, 2, 3, 4, 5, 6, 7];
  expect(await drive(guest.pf, ...vectors.map((vector) => `ring=${vector}`))).toEqual(
    vectors.map((vector) => `interrupt at vector ${vector}`),
  );
});

it('the PF copies memory through the IOMMU, from one byte to many pages', async () => {
  expect(await drive(guest.pf, 'copy=1:0', 'copy=4096:1', 'copy=1000000:7')).toEqual([
    '1 bytes copied, interrupt at vector 0',
    '4096 bytes copied, interrupt at vector 1',
    '1000000 bytes copied, interrupt at vector 7',
  ]);
});

it('interrupts and DMA of the PF go on after a reset, without enabling MSI-X again', async () => {
  expect(
    await drive(guest.pf, 'ring=2', 'copy=8192:3', 'flr', 'ring=2', 'copy=8192:3', 'flr', 'ring=7'),
  ).toEqual([
    'interrupt at vector 2',
    '8192 bytes copied, interrupt at vector 3',
    'flr',
    'interrupt at vector 2',
    '8192 bytes copied, interrupt at vector 3',
    'flr',
    'interrupt at vector 7',
  ]);
});

it('without bus mastering the PF neither interrupts nor copies', async () => {
  expect(
    await drive(
      guest.pf,
      'bus-master=0',
      'quiet-ring=1',
      `failed-copy=${BUS_MASTER_OFF}`,
      'bus-master=1',
      'ring=1',
    ),
  ).toEqual([
    'bus master 0',
    'silence',
    `DMA status ${BUS_MASTER_OFF}`,
    'bus master 1',
    'interrupt at vector 1',
  ]);
});

it('each VF comes up in an IOMMU group of its own', async () => {
  await guest.bindDriver('pci-pf-stub');
  await guest.setNumVfs(VFS);
  for (let vfIndex = 0; vfIndex < VFS; vfIndex++) {
    const vf = guest.vf(vfIndex);
    await guest.bindDriver('vfio-pci', vf);
    expect(await guest.vm.check(`ls /sys/bus/pci/devices/${vf}/iommu_group/devices`)).toBe(vf);
  }
});

it('every MSI-X vector of a VF interrupts, and no other with it', async () => {
  expect(await drive(guest.vf(1), 'ring=0', 'ring=1', 'ring=2', 'ring=3')).toEqual([
    'interrupt at vector 0',
    'interrupt at vector 1',
    'interrupt at vector 2',
    'interrupt at vector 3',
  ]);
});

it('interrupts and DMA of a VF go on after a reset, without enabling MSI-X again', async () => {
  expect(
    await drive(
      guest.vf(0),
      ...['ring=1', 'copy=65536:3', 'flr', 'ring=1', 'copy=65536:3', 'flr', 'copy=5:0'],
    ),
  ).toEqual([
    'interrupt at vector 1',
    '65536 bytes copied, interrupt at vector 3',
    'flr',
    'interrupt at vector 1',
    '65536 bytes copied, interrupt at vector 3',
    'flr',
    '5 bytes copied, interrupt at vector 0',
  ]);
});

it('two VFs at work at the same time do not meet', async () => {
  const steps = Array.from({ length: 5 }, () => 'copy=50000:2 ring=0').join(' ');
  await guest.vm.check(
    `pci-function drive ${guest.vf(1)} ${steps} >/tmp/one & pid=$!; ` +
      `pci-function drive ${guest.vf(2)} ${steps} >/tmp/two && wait $pid`,
  );
  expect(await guest.vm.check('cat /tmp/one /tmp/two | wc -l')).toBe('20');
});

it('a VF that was taken away and made again is as good as new', async () => {
  await guest.setNumVfs(0);
  await guest.setNumVfs(1);
  await guest.bindDriver('vfio-pci', guest.vf(0));
  expect(await drive(guest.vf(0), 'read=4', 'ring=3', 'copy=4096:2')).toEqual([
    '0x00000001',
    'interrupt at vector 3',
    '4096 bytes copied, interrupt at vector 2',
  ]);
});

it('a reset of the PF with VFs enabled leaves VFs that work', async () => {
  await guest.vm.check(`echo 1 > ${guest.sysfs}/reset`);
  expect(await drive(guest.vf(0), 'read=4', 'ring=0', 'copy=4096:1')).toEqual([
    '0x00000001',
    'interrupt at vector 0',
    '4096 bytes copied, interrupt at vector 1',
  ]);
});

it("the guest's vfio-pci can own the PF and make VFs, too", async () => {
  await guest.setNumVfs(0);
  await guest.vm.check('echo 1 > /sys/module/vfio_pci/parameters/enable_sriov');
  await guest.bindDriver('vfio-pci');
  await guest.setNumVfs(2);
  expect(await guest.virtfns()).toEqual([guest.vf(0), guest.vf(1)]);
  await guest.setNumVfs(0);
  await guest.bindDriver('pci-pf-stub');
});

it('a guest that restarts while a VF copies memory finds everything in order afterwards', async () => {
  await guest.setNumVfs(VFS);
  await guest.bindDriver('vfio-pci', guest.vf(2));
  const copies = `pci-function drive ${guest.vf(2)} ${'copy=500000:1 '.repeat(4)}`;
  await guest.vm.check(
    `(while ${copies}; do :; done) >/tmp/copies 2>&1 & sleep 1; [ -s /tmp/copies ]`,
  );
  await guest.reboot();
  await guest.bindDriver('pci-pf-stub');
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
  await guest.bindDriver('vfio-pci', guest.vf(2));
  expect(await drive(guest.vf(2), 'ring=1', 'copy=4096:3')).toEqual([
    'interrupt at vector 1',
    '4096 bytes copied, interrupt at vector 3',
  ]);
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});
