// What a person does at QEMU's monitor, and a guest to its slots, while the PF is in use.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { QmpClient } from '../../vmm-glue/qemu/qmp.ts';
import { timingsIn } from '../bench/pause-guest.ts';
import { BY_A_GUEST } from '../patience.ts';
import { Bar, MAGIC, Sriov, SriovGuest } from './sriov-guest.ts';

const VFS = 3;
const TOTAL_VFS = 7;
const VF_BAR_BYTES = 0x4000;
const SRIOV_CAPABILITY = 0x10;
const ROUNDS = 4;
const folder = mkdtempSync(join(tmpdir(), 'monitor-'));
const disk = join(folder, 'disk.qcow2');
const SNAPSHOT = { tag: 'one', vmstate: 'disk', devices: ['disk'] };

let guest: SriovGuest;
let qmp: QmpClient;

beforeAll(async () => {
  const path = join(folder, 'qmp.sock');
  guest = await SriovGuest.boot({ qemu: ['-qmp', `unix:${path},server=on,wait=off`] });
  await guest.bindDriver('pci-pf-stub');
  qmp = await QmpClient.connect(path);
});

afterAll(async () => {
  qmp?.close();
  await guest?.end();
  rmSync(folder, { recursive: true, force: true });
});

it('device_del of the PF is refused, with VFs on', async () => {
  await guest.setNumVfs(VFS);
  await expect(qmp.execute('device_del', { id: 'sriov-pf0' })).rejects.toThrow(/hotplug/);
  await guest.expectVfContents(VFS);
});

it('the first enable has taken no command, because all slots were placed when the guest had given them an address', () => {
  const [first] = timingsIn(guest.vm.processOutput);
  expect(first).toMatchObject({ placedVfs: VFS, placementCommands: 0 });
  const [ahead] = placedAhead();
  expect(ahead).toMatchObject({ slots: TOTAL_VFS });
  // Of one BAR each, and Command; where it is not known what was there, Command twice.
  expect(ahead!.commands).toBeLessThanOrEqual(3 * TOTAL_VFS);
});

it('an enable of VFs that have not moved takes no command, and no pause where they come up in time', async () => {
  const before = timingsIn(guest.vm.processOutput).length;
  for (let round = 0; round < ROUNDS; round++) {
    await guest.setNumVfs(0);
    await guest.setNumVfs(VFS);
    await guest.expectVfContents(VFS);
  }
  const ended = () => timingsIn(guest.vm.processOutput).slice(before);
  await expect.poll(() => ended().length, BY_A_GUEST).toBe(ROUNDS);
  expect(ended().map(({ placedVfs }) => placedVfs)).toEqual(Array(ROUNDS).fill(VFS));
  expect(ended().map(({ placementCommands }) => placementCommands)).toEqual(Array(ROUNDS).fill(0));
  // A busy machine may take longer than the guest waits, but not each time.
  expect(Math.min(...ended().map(({ pauseMilliseconds }) => pauseMilliseconds))).toBe(0);
});

it('VFs that have moved are placed before the next enable, which takes nothing; so are slots that have lost Command', async () => {
  await guest.setNumVfs(0);
  for (const change of [() => moveVfs(1), () => moveVfs(0), loseCommand]) {
    const before = placedAhead().length;
    await change();
    await expect.poll(() => placedAhead().length, BY_A_GUEST).toBe(before + 1);
  }
  const before = timingsIn(guest.vm.processOutput).length;
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
  await expect.poll(() => timingsIn(guest.vm.processOutput).length, BY_A_GUEST).toBe(before + 1);
  expect(timingsIn(guest.vm.processOutput).at(-1)).toMatchObject({ placementCommands: 0 });
});

it('a slot never lies over what the guest maps where VFs are off', async () => {
  await guest.setNumVfs(0);
  const room = await guest.barAddress(guest.pf, 7);
  const home = await guest.barAddress(guest.pf);
  const [movedVfs, vfsBack] = [await vfBarWrite(1), await vfBarWrite(0)];
  const movePf = (address: number): string =>
    `pci-function config ${guest.pf} 0x10 4 ${address % 2 ** 32}`;
  const look = `pci-function memory ${room + Bar.magic}; pci-function memory ${room + Bar.functionNumber}`;
  const rounds = await guest.vm.check(`
    for round in 1 2 3 4 5 6 7 8; do
      ${movedVfs}; ${movePf(room)}; ${look}
      ${vfsBack}; sleep 0.$round; ${look}
      ${movePf(home)}
    done`);
  const seen = rounds.split('\n').filter(Boolean);
  expect(new Set(seen)).toEqual(new Set([MAGIC, '0x00000000']));
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
});

it('the guest cannot switch off the slot of the PF', async () => {
  const switches =
    'for slot in /sys/bus/pci/slots/*; do [ -e $slot/power ] && echo 0 > $slot/power; done';
  await guest.vm.check(`${switches}; true`);
  await guest.expectVfContents(VFS);
});

it('a snapshot is taken, and the log says that the device is not in it', async () => {
  const size = 2 ** 30;
  await job('blockdev-create', { options: { driver: 'file', filename: disk, size: 0 } });
  await qmp.execute('blockdev-add', { driver: 'file', 'node-name': 'file', filename: disk });
  await job('blockdev-create', { options: { driver: 'qcow2', file: 'file', size } });
  await qmp.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'disk', file: 'file' });
  await job('snapshot-save', SNAPSHOT);
  expect(guest.vm.processOutput).toContain('saved or migrated');
  await guest.expectVfContents(VFS);
});

it('when it is loaded the log says that the device was reset, and how to go on', async () => {
  await job('snapshot-load', SNAPSHOT);
  await expect
    .poll(() => guest.vm.processOutput, BY_A_GUEST)
    .toContain('sriov-pf0: the device was reset');
  expect(await guest.readConfig(guest.pf, 4, 2)).toBe(0);
  await guest.reboot();
  await guest.bindDriver('pci-pf-stub');
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
});

/** What the glue has told of slots that it placed before an enable. */
function placedAhead(): readonly { slots: number; commands: number }[] {
  return guest.vm.processOutput
    .split('\n')
    .filter((line) => line.includes('"slots are placed ahead of an enable"'))
    .map((line) => JSON.parse(line) as { slots: number; commands: number });
}

/** Has the VFs begin so many slices above where the guest's kernel has put them. */
async function moveVfs(slices: number): Promise<void> {
  await guest.vm.check(await vfBarWrite(slices));
}

async function vfBarWrite(slices: number): Promise<string> {
  const register = (await guest.extendedCapability(SRIOV_CAPABILITY)) + Sriov.vfBar0;
  const address = (await guest.barAddress(guest.pf, 7)) + slices * VF_BAR_BYTES;
  return `pci-function config ${guest.pf} ${register} 4 ${address % 2 ** 32}`;
}

/** As a driver may leave it. */
async function loseCommand(): Promise<void> {
  await guest.setNumVfs(VFS);
  await guest.writeConfig(guest.vf(0), 4, 2, 0);
  await guest.setNumVfs(0);
}

/** Runs a job of QEMU's to its end; rejects with its error. */
async function job(command: string, args: Record<string, unknown>): Promise<void> {
  await qmp.execute(command, { 'job-id': 'job', ...args });
  const ended = async () => {
    const [found] = (await qmp.execute('query-jobs')) as { status: string; error?: string }[];
    return { status: found?.status, error: found?.error };
  };
  await expect.poll(ended, BY_A_GUEST).toEqual({ status: 'concluded', error: undefined });
  await qmp.execute('job-dismiss', { id: 'job' });
}
