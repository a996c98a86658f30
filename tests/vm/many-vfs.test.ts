// The other topology: PF and slots side by side on the root bus, with as many VFs as fit there.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { SriovGuest } from './sriov-guest.ts';

const VFS = 63;

let guest: SriovGuest;

beforeAll(async () => {
  guest = await SriovGuest.boot({
    launcher: ['--topology=pcie.0', `--total-vfs=${VFS}`],
    pf: '0000:00:10.0',
  });
  await guest.bindDriver('pci-pf-stub');
});

afterAll(async () => {
  await guest?.end();
});

it(`${VFS} VFs appear at one enable, each with its own contents`, async () => {
  await guest.setNumVfs(VFS);
  expect(await guest.virtfns()).toEqual(Array.from({ length: VFS }, (_, vf) => guest.vf(vf)));
  await guest.expectVfContents(VFS);
});

it('they go, and a few come back', async () => {
  await guest.setNumVfs(0);
  expect(await guest.virtfns()).toEqual([]);
  await guest.setNumVfs(9);
  await guest.expectVfContents(9);
});

it('the PF is an integrated endpoint, since there is no port above it', async () => {
  const output = await guest.vm.check('dmesg | grep "pci 0000:00:10.0: \\[1234:10b0\\]"');
  expect(output).toContain('PCIe Root Complex Integrated Endpoint');
});

it('neither the kernel nor QEMU had anything to complain of', () => {
  guest.expectNoComplaints();
});
