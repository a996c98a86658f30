// What resets leave behind, as a guest sees it: of a VF, of the PF, of the bus, of the whole machine.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Recording } from './recording.ts';
import { Bar, Sriov, SriovGuest } from './sriov-guest.ts';

const SRIOV_CAPABILITY = 0x10;
const BRIDGE_CONTROL = 0x3e;
const SECONDARY_BUS_RESET = 0x40;
const VFS = 4;

const recording = new Recording();
let guest: SriovGuest;

beforeAll(async () => {
  // With ACPI hot-plug QEMU's ports never show their link as active, and Linux takes every bus reset for failed.
  guest = await SriovGuest.boot({
    launcher: recording.options,
    qemu: ['-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'],
  });
  await guest.bindDriver('pci-pf-stub');
});

afterAll(async () => {
  await guest?.end();
  recording.remove();
});

/** Resets a function by one of the methods that the guest's kernel knows: `flr`, `bus`. */
async function reset(address: string, method: string): Promise<void> {
  const device = `/sys/bus/pci/devices/${address}`;
  await guest.vm.check(`echo ${method} > ${device}/reset_method && echo 1 > ${device}/reset`);
}

async function setScratch(address: string, value: number): Promise<void> {
  await guest.writeBar(address, Bar.scratch, value);
  expect(Number(await guest.readBar(address, Bar.scratch))).toBe(value);
}

it('a bus reset of the port leaves a PF whose VFs can be enabled', async () => {
  await setScratch(guest.pf, 0x11);
  await reset(guest.pf, 'bus');
  expect(Number(await guest.readBar(guest.pf, Bar.scratch))).toBe(0);
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
});

it('a function level reset of a VF clears its registers and no others', async () => {
  await setScratch(guest.vf(0), 0x21);
  await setScratch(guest.vf(1), 0x22);
  await setScratch(guest.pf, 0x23);
  await reset(guest.vf(1), 'flr');
  expect(Number(await guest.readBar(guest.vf(0), Bar.scratch))).toBe(0x21);
  expect(Number(await guest.readBar(guest.vf(1), Bar.scratch))).toBe(0);
  expect(Number(await guest.readBar(guest.pf, Bar.scratch))).toBe(0x23);
  await guest.expectVfContents(VFS);
});

it('a function level reset of the PF takes its VFs along, and the guest gets them back', async () => {
  await setScratch(guest.pf, 0x31);
  await setScratch(guest.vf(2), 0x32);
  await reset(guest.pf, 'flr');
  expect(Number(await guest.readBar(guest.pf, Bar.scratch))).toBe(0);
  expect(await guest.virtfns()).toHaveLength(VFS);
  await guest.expectVfContents(VFS);
  expect(Number(await guest.readBar(guest.vf(2), Bar.scratch))).toBe(0);
});

it('VFs can be disabled and enabled after a reset of the PF', async () => {
  await guest.setNumVfs(0);
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
});

it('a function level reset that the guest does not restore leaves VF Enable off', async () => {
  const sriov = await guest.extendedCapability(SRIOV_CAPABILITY);
  const deviceControl = (await standardCapability(0x10)) + 0x08;
  const before = await guest.readConfig(guest.pf, deviceControl, 2);
  await guest.writeConfig(guest.pf, deviceControl, 2, before | 0x8000);
  await guest.vm.check('sleep 0.3');
  expect(await guest.readConfig(guest.pf, sriov + Sriov.control, 2)).toBe(0);
  expect(await guest.readConfig(guest.pf, sriov + Sriov.numVfs, 2)).toBe(0);
});

it('a bus reset behind the back of the kernel leaves a PF that it can find anew', async () => {
  const port = await guest.vm.check(`basename $(dirname $(readlink -f ${guest.sysfs}))`);
  const control = await guest.readConfig(port, BRIDGE_CONTROL, 2);
  await guest.writeConfig(port, BRIDGE_CONTROL, 2, control | SECONDARY_BUS_RESET);
  await guest.writeConfig(port, BRIDGE_CONTROL, 2, control);
  // pci-pf-stub would leave its VFs behind when the PF is removed.
  await guest.setNumVfs(0);
  await guest.vm.check(`echo 1 > ${guest.sysfs}/remove`);
  await guest.vm.check('echo 1 > /sys/bus/pci/rescan');
  await guest.bindDriver('pci-pf-stub');
  await guest.setNumVfs(VFS);
  expect(await guest.virtfns()).toHaveLength(VFS);
  await guest.expectVfContents(VFS);
});

it('a restart with VFs enabled begins without any, and they can be enabled again', async () => {
  await setScratch(guest.vf(0), 0x41);
  const findings = recording.findings();
  await guest.reboot();
  expect(await guest.vm.check(`cat ${guest.sysfs}/sriov_numvfs`)).toBe('0');
  expect(await guest.virtfns()).toEqual([]);
  await guest.bindDriver('pci-pf-stub');
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
  expect(Number(await guest.readBar(guest.vf(0), Bar.scratch))).toBe(0);
  // What QEMU does to its slots when it resets them is no driver's doing.
  expect(recording.findings()).toEqual(findings);
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});

async function standardCapability(id: number): Promise<number> {
  for (let offset = await guest.readConfig(guest.pf, 0x34, 1); offset !== 0; ) {
    const header = await guest.readConfig(guest.pf, offset, 2);
    if ((header & 0xff) === id) {
      return offset;
    }
    offset = header >>> 8;
  }
  throw new Error(`the PF has no capability 0x${id.toString(16)}`);
}
