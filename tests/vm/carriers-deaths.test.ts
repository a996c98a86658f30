// Backend, QEMU and glue started one by one, with VFs mapped over their slots: each is killed in turn.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { BY_A_GUEST } from '../patience.ts';
import type { CliProcess } from './cli-process.ts';
import { SeparateParts } from './separate-parts.ts';
import { Bar, type SriovGuest } from './sriov-guest.ts';

const VFS = 3;
const parts = new SeparateParts('carriers');

let backend: CliProcess;
let glue: CliProcess;
let guest: SriovGuest;

beforeAll(async () => {
  backend = await parts.startBackend(
    [`--total-vfs=${VFS}`, '--vf-bar-size=64K'],
    ['--vf-memory=mapped'],
  );
  await start();
});

afterAll(async () => {
  await guest?.end();
  await glue?.kill('SIGKILL');
  await backend?.kill('SIGKILL');
  parts.remove();
});

async function start(): Promise<void> {
  guest = await parts.bootGuest();
  glue = await parts.attachGlue(backend);
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
  glue = await parts.attachGlue(backend);
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
  glue = await parts.attachGlue(backend);
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
