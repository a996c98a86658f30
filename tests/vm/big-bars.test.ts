// VF BARs that fit nowhere below 4 GiB: the port reserves room for them, and the glue places them in it.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Bar, SriovGuest } from './sriov-guest.ts';

const VFS = 7;
const BAR_BYTES = 64 * 1024 * 1024;
const FOUR_GIB = 2 ** 32;

let guest: SriovGuest;

beforeAll(async () => {
  guest = await SriovGuest.boot({
    launcher: ['--vf-bar-size=64M', `--total-vfs=${VFS}`],
    // So much that what is left below 4 GiB is too small for these BARs.
    memoryMegabytes: 2800,
    // On an AMD processor with 40 address bits, SeaBIOS puts 64-bit windows where QEMU's memory map has a reservation.
    qemu: ['-cpu', 'max,vendor=GenuineIntel'],
  });
  await guest.bindDriver('pci-pf-stub');
});

afterAll(async () => {
  await guest?.end();
});

it('VF BARs of 64 MiB get their room above 4 GiB', async () => {
  const [start, end] = (await guest.vm.check(`sed -n 8p ${guest.sysfs}/resource`)).split(' ');
  expect(Number(start)).toBeGreaterThanOrEqual(FOUR_GIB);
  expect(Number(end) - Number(start) + 1).toBe(VFS * BAR_BYTES);
});

it('each VF answers in its own 64 MiB, to the last byte', async () => {
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
  const last = BAR_BYTES - 4;
  for (let vf = 0; vf < VFS; vf++) {
    await guest.writeBar(guest.vf(vf), last, 0xc000 + vf);
  }
  for (let vf = 0; vf < VFS; vf++) {
    expect(Number(await guest.readBar(guest.vf(vf), last))).toBe(0xc000 + vf);
    expect(Number(await guest.readBar(guest.vf(vf), Bar.functionNumber))).toBe(1 + vf);
  }
});

it('they can be taken away and made again', async () => {
  await guest.setNumVfs(0);
  await guest.setNumVfs(2);
  await guest.expectVfContents(2);
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});
