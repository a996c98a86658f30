// A recording of a Linux guest under stock QEMU: what Linux does is clean, and a driver that does not wait is found. Other
// files do the same with slots elsewhere, with mapped VFs, with a slow host and with other drivers.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Recording } from './recording.ts';
import { SriovGuest } from './sriov-guest.ts';

const recording = new Recording();
let guest: SriovGuest;

beforeAll(async () => {
  guest = await SriovGuest.boot({ launcher: [...recording.options, '--total-vfs=3'] });
});
afterAll(async () => {
  await guest?.end();
  recording.remove();
});

it('Linux enables and disables VFs without breaking a rule', async () => {
  await guest.bindDriver('pci-pf-stub');
  await guest.setNumVfs(2);
  await guest.expectVfContents(2);
  await guest.setNumVfs(0);
  await guest.setNumVfs(1);
  recording.expectClean();
});

it('the recording has the driver’s writes by name, and what the glue did in QEMU’s monitor', () => {
  expect(recording.trace('--register=SR-IOV Control', '--only=writes')).toMatch(
    /pf +W SR-IOV Control +0x[0-9a-f]{4} +vfEnable 0→1, vfMemorySpaceEnable 0→1/,
  );
  const glue = recording.trace('--only=glue');
  expect(glue).toMatch(/glue +stop answered after/);
  expect(glue).toMatch(/glue +cont answered after/);
});

it('a driver that does not wait is found where there were fewer VFs before', async () => {
  await guest.setNumVfs(0);
  await recording.expectHasteFound(guest, 3);
});

it('a driver that does not wait is found where its VFs are in place, and nothing stops it', async () => {
  await recording.expectHasteFound(guest, 3);
});
