import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import {
  decodeProfile,
  encodeProfile,
  insistOnIds,
} from '../../../../backend/devices/device-profile.ts';
import { HostState, preparedPfs } from '../../../../backend/devices/vfio/host-state.ts';
import { openDeviceIn } from '../../../../backend/devices/vfio/open-vfio-device.ts';
import {
  prepare,
  release,
  udevRule,
} from '../../../../backend/devices/vfio/readiness/preparation.ts';
import { PciFunctionFolder } from '../../../../backend/devices/vfio/sysfs.ts';
import { FakeVfioHost, PF } from '../../../fakes/vfio-host.ts';

let host: FakeVfioHost;
beforeEach(() => {
  host = new FakeVfioHost();
});
afterEach(() => host.remove());

const PREPARED = {
  driver: 'igb',
  driverOverride: null,
  enableSriov: 'N',
  owners: [],
  files: [],
};

it('what sysfs says about a function', () => {
  host.setVfs(2);
  const pf = new PciFunctionFolder(join(host.folder, 'sys'), PF);
  expect(pf.exists()).toBe(true);
  expect(pf.driver).toBe('vfio-pci');
  expect(pf.driverOverride).toBeUndefined();
  expect(pf.iommuGroup).toBe('7');
  expect(pf.numberOf('sriov_totalvfs')).toBe(4);
  expect(pf.virtualFunctions()).toEqual([host.vfBdf(0), host.vfBdf(1)]);
  expect(pf.sibling(host.vfBdf(0)).physicalFunction).toBe(PF);
  expect(pf.groupMembers()).toEqual([PF]);
  expect(pf.resources()[7]).toEqual({ start: 0xfe80_0000n, end: 0xfe80_ffffn, flags: 0x14220c });
  expect(pf.sibling('0000:09:00.0').exists()).toBe(false);
});

it('a profile takes the place of a look at a VF', async () => {
  const options = { pf: PF, container: 'shared', log: host.context.log } as const;
  const probed = await openDeviceIn(host.context, options);
  host.write('profile.json', encodeProfile(probed.description));
  await probed.close();
  host.numVfsWrites.length = 0;

  const profile = join(host.folder, 'profile.json');
  const device = await openDeviceIn(host.context, { ...options, profile });
  expect(host.numVfsWrites).toEqual([]);
  expect(device.description.vf).toEqual(probed.description.vf);
});

it('a profile of another device, or none at all, is refused with its fix', async () => {
  const options = { pf: PF, container: 'shared', log: host.context.log } as const;
  const { description } = await openDeviceIn(host.context, options);
  const other = description.pf.config.slice();
  other[0] = 0;
  const profile = decodeProfile(encodeProfile(description), 'FILE');
  expect(() => insistOnIds(profile, 'FILE', PF, other)).toThrow(
    `FILE: it describes VFs of device 10c98086, this PF is 10c98000; write it anew: \`vfio-user-sriov probe --pf=${PF} --output=FILE\``,
  );
  for (const text of ['', '{}', '[]', 'null', '{"format":2}']) {
    expect(() => decodeProfile(text, 'FILE')).toThrow(
      /it is no profile.*; name a profile; .*--output=FILE` writes one$/s,
    );
  }
});

it('the state of a PF is kept until nothing is left to say', () => {
  const state = new HostState(join(host.folder, 'run'), PF);
  expect(state.read()).toEqual({});
  state.update({ enabledVfs: 3 });
  state.update({ prepared: PREPARED });
  expect(state.read()).toEqual({ enabledVfs: 3, prepared: PREPARED });
  expect(preparedPfs(join(host.folder, 'run'))).toEqual([PF]);
  state.update({ enabledVfs: undefined, prepared: undefined });
  expect(existsSync(join(host.folder, 'run', `${PF}.json`))).toBe(false);
});

it('a state file that was cut off says nothing', () => {
  host.write(`run/${PF}.json`, '{"enabledVf');
  expect(new HostState(join(host.folder, 'run'), PF).read()).toEqual({});
});

it('a state file of 0.1.0, which has no number, is read', () => {
  const text = `{"enabledVfs":2,"prepared":${JSON.stringify(PREPARED)}}\n`;
  host.write(`run/${PF}.json`, text);
  const state = new HostState(join(host.folder, 'run'), PF);
  expect(state.read()).toEqual({ enabledVfs: 2, prepared: PREPARED });
});

it('a state file of a later version is refused, and left alone', () => {
  const text = '{"version":2,"enabledVfs":2}';
  host.write(`run/${PF}.json`, text);
  const state = new HostState(join(host.folder, 'run'), PF);
  expect(() => state.read()).toThrow('another version of this program wrote it (format 2');
  expect(() => state.update({ enabledVfs: undefined })).toThrow('format 2');
  expect(readFileSync(join(host.folder, 'run', `${PF}.json`), 'utf8')).toBe(text);
});

it('a profile of 0.1.0 is read, with its card or without, and a later one refused', async () => {
  const shape = { config: '8680'.padEnd(512, '0'), bars: [], regions: [], irqs: [] };
  const early = { format: 1, pfIds: 1, totalVfs: 8, vf: shape };
  expect(decodeProfile(JSON.stringify(early), 'card.json')).toMatchObject({ totalVfs: 8 });
  const options = { pf: PF, container: 'shared', log: host.context.log } as const;
  const { description } = await openDeviceIn(host.context, options);
  expect(decodeProfile(encodeProfile(description), 'card.json').card?.name).toBe(PF);
  expect(() => decodeProfile(JSON.stringify({ ...early, format: 2 }), 'card.json')).toThrow(
    'it is no profile of format 1',
  );
});

it('a lock is given back', () => {
  const state = new HostState(join(host.folder, 'run'), PF);
  const unlock = state.lock();
  expect(() => state.lock()).toThrow(`pid ${process.pid}`);
  unlock();
  state.lock()();
});

const tools = () => ({
  loadModule: () => {},
  udevRules: join(host.folder, 'rules'),
  reloadUdev: () => {},
  settleUdev: () => {},
});

it('prepare gives files to a user, and release gives them back', async () => {
  const lines: string[] = [];
  host.write('sys/module/vfio_iommu_type1/parameters/dma_entry_limit', '65535\n');
  const account = { name: 'tester', uid: process.getuid!(), gid: process.getgid!() };
  await prepare(host.context, tools(), PF, account, (line) => lines.push(line));
  expect(lines.join('\n')).toContain('sriov_numvfs to tester');
  const rule = join(host.folder, 'rules', `70-vfio-user-sriov-${PF}.rules`);
  expect(readFileSync(rule, 'utf8')).toContain('OWNER="tester"');
  expect(new HostState(join(host.folder, 'run'), PF).read().prepared?.owners).toHaveLength(2);

  // In the made-up tree no driver ever leaves a function: release must not get that far.
  host.unlink(`${host.functionFolder(PF)}/driver`);
  await release(host.context, tools(), PF, (line) => lines.push(line));
  expect(existsSync(rule)).toBe(false);
  expect(new HostState(join(host.folder, 'run'), PF).read()).toEqual({});
});

it('a PF whose driver udev is just loading is noted as that driver’s', async () => {
  const driver = `${host.functionFolder(PF)}/driver`;
  const target = readlinkSync(join(host.folder, driver));
  host.unlink(driver);
  const settleUdev = () => host.link(driver, target);
  await prepare(host.context, { ...tools(), settleUdev }, PF, undefined, () => {});
  expect(new HostState(join(host.folder, 'run'), PF).read().prepared?.driver).toBe('vfio-pci');
});

it('a prepare that leaves VFs to root’s processes gives the PF alone, also after one that gave all', async () => {
  host.write('sys/module/vfio_iommu_type1/parameters/dma_entry_limit', '65535\n');
  const account = { name: 'tester', uid: process.getuid!(), gid: process.getgid!() };
  const rule = join(host.folder, 'rules', `70-vfio-user-sriov-${PF}.rules`);
  await prepare(host.context, tools(), PF, account, () => {});
  expect(existsSync(rule)).toBe(true);
  const lines: string[] = [];
  const grant = { ...account, isPfOnly: true };
  await prepare(host.context, tools(), PF, grant, (line) => lines.push(line));
  expect(lines.join('\n')).toContain('/dev/vfio/7 to tester');
  expect(lines.join('\n')).not.toContain('sriov_numvfs');
  expect(existsSync(rule)).toBe(false);
});

it('a prepare that fails half-way has noted what it changes, for release to undo', async () => {
  host.write('sys/module/vfio_iommu_type1/parameters/dma_entry_limit', '65535\n');
  host.write('no-folder', '');
  const failing = { ...tools(), udevRules: join(host.folder, 'no-folder', 'rules') };
  const account = { name: 'tester', uid: process.getuid!(), gid: process.getgid!() };
  await expect(prepare(host.context, failing, PF, account, () => {})).rejects.toThrow('ENOTDIR');
  const { owners, files } = new HostState(join(host.folder, 'run'), PF).read().prepared!;
  expect(owners).toHaveLength(2);
  expect(files).toHaveLength(1);
});

it('release refuses while a function is held, for unbinding would hang', async () => {
  new HostState(join(host.folder, 'run'), PF).update({ prepared: PREPARED });
  host.heldGroups.add('7');
  await expect(release(host.context, tools(), PF, () => {})).rejects.toThrow('is in use by');
});

it('release of what was not prepared is refused', async () => {
  await expect(release(host.context, tools(), PF, () => {})).rejects.toThrow('was not prepared');
});

it('prepare refuses a PF whose driver has VFs enabled', async () => {
  host.setVfs(1);
  host.link(`${host.functionFolder(PF)}/driver`, '../../../../bus/pci/drivers/igb');
  await expect(prepare(host.context, tools(), PF, undefined, () => {})).rejects.toThrow(
    'it has 1 VFs enabled',
  );
  expect(new HostState(join(host.folder, 'run'), PF).read()).toEqual({});
});

it('the udev rule covers the groups of this PF only', () => {
  host.setVfs(2);
  host.addFunction('0000:02:00.0', '30');
  // Of another card, and one that has something else in its group.
  host.link(`${host.addFunction('0000:02:10.0', '31')}/physfn`, '../0000:02:00.0');
  host.addFunction('0000:01:10.7', '21');
  const rule = udevRule(host.context.folders.sysfs, PF, 'tester');
  expect(rule).toMatch(/^ACTION=="add", SUBSYSTEM=="vfio", PROGRAM="[^"]*", OWNER="tester"$/m);
  const [, program] = /PROGRAM="\/bin\/sh -c '([^']*)'"/.exec(rule)!;
  /** As udev runs it, once for each group that comes. */
  const isGiven = (group: string): boolean => {
    const command = program!.replaceAll('%k', group).replaceAll('$$', () => '$');
    return spawnSync('/bin/sh', ['-c', command]).status === 0;
  };
  expect(['20', '21', '7', '30', '31', '99'].filter(isGiven)).toEqual(['20']);
});

it('a note that is no plain file says nothing, and stops nobody', () => {
  const folder = join(host.folder, 'run');
  const state = new HostState(folder, PF);
  state.update({ enabledVfs: 2 });
  rmSync(join(folder, `${PF}.json`));
  execFileSync('mkfifo', [join(folder, `${PF}.json`)]);
  expect(state.read()).toEqual({});
  state.update({ enabledVfs: 3 });
  expect(state.read()).toEqual({ enabledVfs: 3 });
});

it("a lock that is a link to somebody's file is refused, and the file left alone", () => {
  const folder = join(host.folder, 'run');
  const state = new HostState(folder, PF);
  state.lock()();
  const victim = join(host.folder, 'victim');
  writeFileSync(victim, 'secret');
  rmSync(join(folder, `${PF}.lock`));
  symlinkSync(victim, join(folder, `${PF}.lock`));
  expect(() => state.lock()).toThrow('a symbolic link is there: remove it');
  expect(readFileSync(victim, 'utf8')).toBe('secret');
});

it('prepare refuses a PF that serve would refuse whatever is prepared', async () => {
  host.addFunction('0000:01:00.1', '7', 'e1000e');
  await expect(prepare(host.context, tools(), PF, undefined, () => {})).rejects.toThrow(
    'it shares its IOMMU group 7 with 0000:01:00.1 (e1000e); put the card into a slot',
  );
});
