// Backend, QEMU and glue started one by one, with VFs mapped over their slots: each is killed in turn.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { BY_A_GUEST } from '../patience.ts';
import { CliProcess } from './cli-process.ts';
import { Bar, SriovGuest } from './sriov-guest.ts';

const VFS = 3;
const folder = mkdtempSync(join(tmpdir(), 'carriers-'));
const socketPath = join(folder, 'pf.sock');
const qmpPath = join(folder, 'qmp.sock');

let backend: CliProcess;
let glue: CliProcess;
let guest: SriovGuest;
let deviceArguments: string[];

beforeAll(async () => {
  backend = new CliProcess(
    'serve',
    '--loopback',
    `--total-vfs=${VFS}`,
    '--vf-bar-size=64K',
    `--socket-path=${socketPath}`,
    `--vf-sockets=${join(folder, 'vfs')}`,
  );
  const [ready] = await backend.waitFor(/^ready .*$/m);
  const printer = new CliProcess(
    'qemu-args',
    `--ready=${ready}`,
    `--qmp=${qmpPath}`,
    '--vf-memory=mapped',
    '--json',
  );
  expect(await printer.ended()).toBe(0);
  deviceArguments = JSON.parse(printer.output);
  await start();
});

afterAll(async () => {
  await guest?.end();
  await glue?.kill('SIGKILL');
  await backend?.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

async function start(): Promise<void> {
  guest = await SriovGuest.boot({
    starter: (qemu) => ({ command: qemu, args: deviceArguments }),
  });
  await guest.bindDriver('pci-pf-stub');
  glue = await attachGlue();
}

async function attachGlue(): Promise<CliProcess> {
  const from = backend.output.length;
  const attached = new CliProcess('attach-qemu', `--qmp=${qmpPath}`, `--socket-path=${socketPath}`);
  await backend.waitFor(/attached as glue/, from);
  return attached;
}

/** How many VFs' memory QEMU has mapped, as the kernel tells. */
function mappedInQemu(): number {
  const maps = readFileSync(`/proc/${guest.vm.pid}/maps`, 'utf8');
  return new Set(maps.match(/loopback-vf\d+/g)).size;
}

async function mappedVfs(count: number): Promise<void> {
  await expect.poll(mappedInQemu, BY_A_GUEST).toBe(count);
}

async function enableMapped(): Promise<void> {
  await guest.setNumVfs(VFS);
  await mappedVfs(VFS);
  await guest.expectVfContents(VFS);
  await guest.writeBar(guest.vf(1), Bar.memory, 0x99);
}

it('VFs that are disabled are in QEMU no more', async () => {
  await enableMapped();
  await guest.setNumVfs(0);
  await mappedVfs(0);
});

it('when the glue is killed VFs stay as they are, and the next one takes their memory out', async () => {
  await enableMapped();
  await glue.kill('SIGKILL');
  expect(Number(await guest.readBar(guest.vf(1), Bar.memory))).toBe(0x99);
  expect(mappedInQemu()).toBe(VFS);
  glue = await attachGlue();
  await mappedVfs(0);
  await guest.expectVfContents(VFS);
  expect(Number(await guest.readBar(guest.vf(1), Bar.memory))).toBe(0x99);
});

it('with the next glue VFs are disabled, and mapped again', async () => {
  await guest.setNumVfs(0);
  await enableMapped();
});

it('a glue that is told to end takes the memory out first', async () => {
  expect(await glue.kill('SIGTERM')).toBe(0);
  expect(mappedInQemu()).toBe(0);
  await guest.expectVfContents(VFS);
  glue = await attachGlue();
  await guest.setNumVfs(0);
});

it('neither the kernel nor QEMU had anything to complain of', () => {
  guest.expectNoComplaints();
});

it('after QEMU was killed with mapped VFs, a new one on the same sockets is as good', async () => {
  await enableMapped();
  guest.vm.killGroup();
  await guest.end();
  await glue.kill('SIGKILL');
  await start();
  expect(await guest.virtfns()).toEqual([]);
  await enableMapped();
});

it('when the backend is killed the glue takes the memory out of QEMU', async () => {
  await backend.kill('SIGKILL');
  await mappedVfs(0);
});
