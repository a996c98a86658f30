// A recording of a Linux guest under stock QEMU: what Linux does is clean, and a driver that does not wait is found.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { CLI, Sriov, SriovGuest } from './sriov-guest.ts';

const SRIOV_ID = 0x10;

let guest: SriovGuest;
let folder: string;
let path: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'trace-'));
  path = join(folder, 'trace');
  guest = await SriovGuest.boot({ launcher: [`--trace=${path}`, '--total-vfs=3'] });
});
afterAll(async () => {
  await guest?.end();
  rmSync(folder, { recursive: true, force: true });
});

function trace(...args: string[]): string {
  const { stdout, stderr, status } = spawnSync(process.execPath, [CLI, 'trace', path, ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  expect([status, stderr]).toEqual([0, '']);
  return stdout;
}

it('Linux enables and disables VFs without breaking a rule', async () => {
  await guest.bindDriver('pci-pf-stub');
  await guest.setNumVfs(2);
  await guest.expectVfContents(2);
  await guest.setNumVfs(0);
  await guest.setNumVfs(1);
  const lines = trace('--explain').trim().split('\n');
  expect(lines[0]).toBe('nothing that the standard forbids');
  expect(lines.filter((line) => /^not judged: (enable|disable)-wait/.test(line))).toEqual([]);
});

it('the recording has the driver’s writes by name, and what the glue did in QEMU’s monitor', () => {
  expect(trace('--register=SR-IOV Control', '--only=writes')).toMatch(
    /pf +W SR-IOV Control +0x[0-9a-f]{4} +vfEnable 0→1, vfMemorySpaceEnable 0→1/,
  );
  const glue = trace('--only=glue');
  expect(glue).toMatch(/glue +.*stop/);
  expect(glue).toMatch(/glue +.*cont/);
});

it('a driver that does not wait after a disable is found', async () => {
  await guest.setNumVfs(0);
  const sriov = await guest.extendedCapability(SRIOV_ID);
  await guest.writeConfig(guest.pf, sriov + Sriov.numVfs, 2, 1);
  await guest.vm.check(
    `pci-function config ${guest.pf} ${sriov + Sriov.control} 2 9; ` +
      `pci-function config ${guest.pf} ${sriov + Sriov.control} 2 0; ` +
      `pci-function config ${guest.pf} ${sriov + Sriov.numVfs} 2`,
  );
  expect(trace('--explain')).toContain('disable without the 1 s wait');
});
