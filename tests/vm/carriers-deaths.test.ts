// Backend, QEMU and glue started one by one, with VFs mapped over their slots: each is killed while they are laid, while they
// lie there, and while they are taken out.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BY_A_GUEST } from '../patience.ts';
import { type CliProcess, statusOf } from './cli-process.ts';
import { Recording } from './recording.ts';
import { SeparateParts } from './separate-parts.ts';
import { Bar, type SriovGuest } from './sriov-guest.ts';

const VFS = 3;
const parts = new SeparateParts('carriers');
const recording = new Recording();

let backend: CliProcess;
let glue: CliProcess;
let guest: SriovGuest;

beforeAll(async () => {
  await startBackend();
  await start();
});

afterAll(async () => {
  await guest?.end();
  await glue?.kill('SIGKILL');
  await backend?.kill('SIGKILL');
  parts.remove();
  recording.remove();
});

async function startBackend(): Promise<void> {
  backend = await parts.startBackend(
    [`--total-vfs=${VFS}`, '--vf-bar-size=64K', ...recording.options],
    ['--vf-memory=mapped'],
  );
}

/** QEMU, its guest, and a glue. */
async function start(): Promise<void> {
  guest = await parts.bootGuest();
  glue = await parts.attachGlue(backend);
}

/** How many VFs' memory QEMU has mapped, as the kernel tells. */
function mappedInQemu(): number {
  const maps = readFileSync(`/proc/${guest.vm.pid}/maps`, 'utf8');
  return new Set(maps.match(/loopback-vf\d+/g)).size;
}

/**
 * QEMU 11.1 was adding a carrier when its backend died: its error handling asserts that a device fails once, and this one
 * fails at each question.
 */
function hasAborted(): boolean {
  return /error_setv: Assertion/.test(guest.vm.processOutput);
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

async function phase(): Promise<string> {
  return (await statusOf(parts.socketPath)).phase;
}

/** Has the guest write to sriov_numvfs, and waits for nothing of what follows. */
async function beginToWrite(numVfs: number): Promise<void> {
  const file = `${guest.sysfs}/sriov_numvfs`;
  await guest.vm.check(`(echo ${numVfs} > ${file}) < /dev/null > /dev/null 2>&1 &`);
}

/** When somebody is killed; `vfs`: how many the guest has afterwards. */
const POINTS = [
  {
    when: 'while they are laid',
    vfs: VFS,
    reach: async () => {
      await beginToWrite(VFS);
      await expect.poll(mappedInQemu, { ...BY_A_GUEST, interval: 1 }).toBeGreaterThan(0);
    },
  },
  { when: 'while they lie there', vfs: VFS, reach: enableMapped },
  {
    when: 'while they are taken out',
    vfs: 0,
    reach: async () => {
      await enableMapped();
      await beginToWrite(0);
      await expect.poll(mappedInQemu, { ...BY_A_GUEST, interval: 1 }).toBeLessThan(VFS);
    },
  },
] as const;

it('VFs that are disabled are in QEMU no more', async () => {
  await enableMapped();
  await guest.setNumVfs(0);
  await mappedVfs(0);
});

it('Linux breaks no rule where VFs are mapped behind a root port, and a driver that does not wait is found', async () => {
  recording.expectClean();
  await recording.expectHasteFound(guest);
  await mappedVfs(0);
});

describe.each(POINTS)('a glue that is killed $when', ({ reach, vfs }) => {
  it('leaves VFs that work, and the next one takes their memory out', async () => {
    await reach();
    await glue.kill('SIGKILL');
    glue = await parts.attachGlue(backend);
    await mappedVfs(0);
    await expect.poll(async () => (await guest.virtfns()).length, BY_A_GUEST).toBe(vfs);
    await guest.expectVfContents(vfs);
  });

  it('has no part in what comes after it', async () => {
    await guest.setNumVfs(0);
    // VFs that QEMU still had are tried again at intervals.
    await expect.poll(phase, BY_A_GUEST).toBe('disabled');
    await enableMapped();
    await guest.setNumVfs(0);
  });
});

it('what a VF has in its memory is there with and without its carrier', async () => {
  await enableMapped();
  await glue.kill('SIGKILL');
  expect(Number(await guest.readBar(guest.vf(1), Bar.memory))).toBe(0x99);
  expect(mappedInQemu()).toBe(VFS);
  glue = await parts.attachGlue(backend);
  await mappedVfs(0);
  expect(Number(await guest.readBar(guest.vf(1), Bar.memory))).toBe(0x99);
  await guest.setNumVfs(0);
});

it('a glue that is told to end takes the memory out first', async () => {
  await enableMapped();
  expect(await glue.kill('SIGTERM')).toBe(0);
  expect(mappedInQemu()).toBe(0);
  await guest.expectVfContents(VFS);
  glue = await parts.attachGlue(backend);
  await guest.setNumVfs(0);
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});

it.each(POINTS)(
  'after QEMU was killed $when, a new one on the same sockets is as good',
  async ({ reach }) => {
    await reach();
    guest.vm.killGroup();
    await guest.end();
    await glue.kill('SIGKILL');
    await start();
    expect(await guest.virtfns()).toEqual([]);
    await enableMapped();
    await guest.setNumVfs(0);
  },
);

it.each(POINTS)(
  'when the backend is killed $when, QEMU has nothing of the VFs any more, and a new start is as good',
  async ({ reach }) => {
    await reach();
    await backend.kill('SIGKILL');
    await expect.poll(() => (hasAborted() ? 0 : mappedInQemu()), BY_A_GUEST).toBe(0);
    await guest.end();
    await glue.kill('SIGKILL');
    await startBackend();
    await start();
    await enableMapped();
    await guest.setNumVfs(0);
  },
);
