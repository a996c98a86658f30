// VFs whose memory is laid over their slots, as it is by default: all is as with trapped slots, but for the time that it takes,
// and the guest sees nothing of how the memory came there.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { BY_A_GUEST } from '../patience.ts';
import { mappedVfs, statusOf } from './cli-process.ts';
import { sleepWhileRead } from './power-state.ts';
import { Recording } from './recording.ts';
import { ALL_ONES, Bar, Sriov, SriovGuest } from './sriov-guest.ts';
import { isReadUnasked, nanosecondsOfRead, READS } from './unasked-reads.ts';

/** One more than go on a port. */
const VFS = 9;
const SRIOV_CAPABILITY = 0x10;
const VF_MEMORY_SPACE_ENABLE = 0x8;
const COMMAND = 0x4;
const MEMORY_SPACE_ENABLE = 0x2;
/** In each of the three pieces of a BAR of 64 KiB: 8, 16 and 32 KiB. */
const PLACES = [Bar.memory + 0xffc, 0x4000, 0xfffc];
/** What is on the expander bus, which is 0x80, or below it. */
const CARRIER_BUSES = /^0000:[89a-f].:.*$/gm;
/** What QEMU has a guest read where nothing is. */
const NOTHING_MAPPED = '0x00000000';

const folder = mkdtempSync(join(tmpdir(), 'carriers-'));
const socketPath = join(folder, 'pf.sock');
const recording = new Recording();
let guest: SriovGuest;
/** Of the guest's kernel, before the first enable. */
let devices: string;

beforeAll(async () => {
  guest = await SriovGuest.boot({
    launcher: [
      '--topology=pcie.0',
      `--total-vfs=${VFS}`,
      '--vf-bar-size=64K',
      `--socket-path=${socketPath}`,
      ...recording.options,
    ],
    pf: '0000:00:10.0',
    iommu: true,
    cpus: 4,
  });
  await guest.bindDriver('pci-pf-stub');
  devices = await listDevices();
});

afterAll(async () => {
  await guest?.end();
  recording.remove();
  rmSync(folder, { recursive: true, force: true });
});

/** Waits until the memory of so many VFs is mapped, and no other's. */
async function waitForMapped(count: number): Promise<void> {
  await expect.poll(() => mappedVfs(socketPath), BY_A_GUEST).toBe(count);
}

/** PF and everything that is no VF. */
async function listDevices(): Promise<string> {
  return await guest.vm.check('ls /sys/bus/pci/devices');
}

/** Each VF keeps values of its own in every piece of its memory. */
async function expectOwnMemory(count: number): Promise<void> {
  const all = Array.from({ length: count }, (_, vf) =>
    PLACES.map((offset) => ({ address: guest.vf(vf), offset, value: 0x1000 * (vf + 1) + offset })),
  ).flat();
  const write = all.map((each) => `pci-function bar ${each.address} ${each.offset} ${each.value}`);
  const read = all.map((each) => `pci-function bar ${each.address} ${each.offset}`);
  const output = await guest.vm.check([...write, ...read].join('\n'));
  expect(output.split('\n').map(Number)).toEqual(all.map(({ value }) => value));
}

async function drive(address: string, ...steps: string[]): Promise<string[]> {
  return (await guest.vm.check(`pci-function drive ${address} ${steps.join(' ')}`)).split('\n');
}

it('VFs are mapped once they are enabled, more than go on one port, and each shows its own contents', async () => {
  await guest.setNumVfs(VFS);
  await waitForMapped(VFS);
  await guest.expectVfContents(VFS);
  await expectOwnMemory(VFS);
});

it('they were mapped while the guest ran', () => {
  expect(guest.vm.processOutput).toMatch(/"pauses":0,.*"VFs are mapped"/);
});

it("reading a VF's memory asks the backend nothing, and takes a fraction of the time", async () => {
  const before = (await statusOf(socketPath)).vfs[1]!.messages;
  const pf = await nanosecondsOfRead(guest, guest.pf, Bar.memory);
  const vf = await nanosecondsOfRead(guest, guest.vf(1), Bar.memory);
  expect((await statusOf(socketPath)).vfs[1]!.messages - before).toBeLessThan(READS);
  const trapped = await nanosecondsOfRead(guest, guest.vf(1), Bar.scratch);
  console.log(
    `a read of a VF's memory ${vf} ns, of the PF's ${pf} ns, of a trapped register ${trapped} ns`,
  );
  expect(trapped / vf).toBeGreaterThan(100);
});

it('the guest sees a root port for each 8 VFs, and no device more than its VFs, also after a rescan', async () => {
  await guest.vm.check('echo 1 > /sys/bus/pci/rescan');
  expect(devices.match(CARRIER_BUSES)).toHaveLength(Math.ceil(VFS / 8));
  const vfs = Array.from({ length: VFS }, (_, vf) => guest.vf(vf));
  expect((await listDevices()).split('\n').filter((each) => !vfs.includes(each))).toEqual(
    devices.split('\n'),
  );
  expect(await guest.vm.check('dmesg | grep -ciE "pciehp|hotplug event" || true')).toBe(
    await guest.vm.check('dmesg | grep -iE "pciehp|hotplug event" | grep -c "Slot #" || true'),
  );
  await guest.expectVfContents(VFS);
});

it('interrupts and DMA of mapped VFs, before and after a function level reset', async () => {
  for (const vf of [guest.vf(1), guest.vf(8)]) {
    await guest.bindDriver('vfio-pci', vf);
    expect(await drive(vf, 'ring=0', 'copy=5000:1', 'flr', 'ring=1', 'copy=5000:0')).toEqual([
      'interrupt at vector 0',
      '5000 bytes copied, interrupt at vector 1',
      'flr',
      'interrupt at vector 1',
      '5000 bytes copied, interrupt at vector 0',
    ]);
    // An idle vfio-pci keeps its function in D3hot.
    await guest.vm.check(`echo ${vf} > /sys/bus/pci/drivers/vfio-pci/unbind`);
  }
  await waitForMapped(VFS);
  // A reset has the slot mapped anew, over the carrier.
  await expect.poll(() => isReadUnasked(guest, socketPath, 1), BY_A_GUEST).toBe(true);
});

it('memory goes with VF Memory Space Enable, and comes back', async () => {
  const control = (await guest.extendedCapability(SRIOV_CAPABILITY)) + Sriov.control;
  const before = await guest.readConfig(guest.pf, control, 2);
  await guest.writeBar(guest.vf(0), Bar.memory, 0x77);
  await guest.writeConfig(guest.pf, control, 2, before & ~VF_MEMORY_SPACE_ENABLE);
  await waitForMapped(0);
  expect(await guest.readBar(guest.vf(0), Bar.memory)).toBe(ALL_ONES);
  await guest.writeConfig(guest.pf, control, 2, before);
  await waitForMapped(VFS);
  expect(Number(await guest.readBar(guest.vf(0), Bar.memory))).toBe(0x77);
});

it("memory goes with Memory Space Enable in a VF's own Command, and comes back; the others' stays", async () => {
  const address = (await guest.barAddress(guest.vf(8))) + Bar.memory;
  const command = await guest.readConfig(guest.vf(8), COMMAND, 2);
  await guest.writeBar(guest.vf(8), Bar.memory, 0x88);
  await guest.writeConfig(guest.vf(8), COMMAND, 2, command & ~MEMORY_SPACE_ENABLE);
  await expect
    .poll(() => guest.vm.check(`pci-function memory ${address}`), BY_A_GUEST)
    .toBe(NOTHING_MAPPED);
  await waitForMapped(VFS - 1);
  expect(await isReadUnasked(guest, socketPath, 1)).toBe(true);
  await guest.writeConfig(guest.vf(8), COMMAND, 2, command);
  await expect.poll(() => isReadUnasked(guest, socketPath, 8), BY_A_GUEST).toBe(true);
  await waitForMapped(VFS);
  expect(Number(await guest.vm.check(`pci-function memory ${address}`))).toBe(0x88);
});

it('Linux’s enables, disables and resets break no rule, where VFs are mapped on pcie.0 as well', () => {
  recording.expectClean();
});

it('a VF goes to D3hot and back while another CPU of the guest reads it', async () => {
  await sleepWhileRead(guest, guest.vf(4));
  await waitForMapped(VFS);
  await expect.poll(() => isReadUnasked(guest, socketPath, 4), BY_A_GUEST).toBe(true);
  await guest.expectVfContents(VFS);
});

it('a function level reset of the PF takes the VFs along, and they are mapped again', async () => {
  await guest.vm.check(`echo flr > ${guest.sysfs}/reset_method && echo 1 > ${guest.sysfs}/reset`);
  await guest.expectVfContents(VFS);
  await waitForMapped(VFS);
  await expectOwnMemory(VFS);
});

it('disabled VFs are gone from QEMU, and come back empty', async () => {
  await guest.writeBar(guest.vf(2), Bar.memory, 0x55);
  const address = await guest.barAddress(guest.vf(2));
  await guest.setNumVfs(0);
  expect(await guest.vm.check(`pci-function memory ${address + Bar.memory}`)).toBe(ALL_ONES);
  expect(await listDevices()).toBe(devices);
  await guest.setNumVfs(3);
  await waitForMapped(3);
  expect(Number(await guest.readBar(guest.vf(2), Bar.memory))).toBe(0);
  await expectOwnMemory(3);
});

it('a restart with mapped VFs begins without any, and they can be enabled again', async () => {
  await guest.reboot();
  expect(await guest.virtfns()).toEqual([]);
  expect(await listDevices()).toBe(devices);
  await guest.bindDriver('pci-pf-stub');
  await guest.setNumVfs(VFS);
  await waitForMapped(VFS);
  await guest.expectVfContents(VFS);
  await expectOwnMemory(VFS);
});

it('a driver that does not wait is found, where VFs are mapped on pcie.0 as well', async () => {
  await guest.setNumVfs(0);
  await recording.expectHasteFound(guest);
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});
