// Backend, QEMU and glue are killed while VFs' memory is laid over their slots, while it lies there, and while it is taken out.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BY_A_GUEST } from '../patience.ts';
import { MappedParts, VFS } from './mapped-parts.ts';
import { Recording } from './recording.ts';
import { Bar } from './sriov-guest.ts';

const recording = new Recording();
const parts = new MappedParts('carriers', recording.options);

beforeAll(async () => {
  await parts.startBackend();
  await parts.start();
});

afterAll(async () => {
  await parts.end();
  recording.remove();
});

/** When somebody is killed; `vfs`: how many the guest has afterwards. */
const POINTS = [
  {
    when: 'while they are laid',
    vfs: VFS,
    reach: async () => {
      await parts.beginToWrite(VFS);
      await expect
        .poll(() => parts.mappedInQemu, { ...BY_A_GUEST, interval: 1 })
        .toBeGreaterThan(0);
    },
  },
  { when: 'while they lie there', vfs: VFS, reach: () => parts.enableMapped() },
  {
    when: 'while they are taken out',
    vfs: 0,
    reach: async () => {
      await parts.enableMapped();
      await parts.beginToWrite(0);
      await expect.poll(() => parts.mappedInQemu, { ...BY_A_GUEST, interval: 1 }).toBeLessThan(VFS);
    },
  },
] as const;

it('VFs that are disabled are in QEMU no more', async () => {
  await parts.enableMapped();
  await parts.guest.setNumVfs(0);
  await parts.waitForMapped(0);
});

it('Linux breaks no rule where VFs are mapped behind a root port, and a driver that does not wait is found', async () => {
  recording.expectClean();
  await recording.expectHasteFound(parts.guest);
  await parts.waitForMapped(0);
});

describe.each(POINTS)('a glue that is killed $when', ({ reach, vfs }) => {
  it('leaves VFs that work, and the next one takes their memory out', async () => {
    await reach();
    await parts.glue.kill('SIGKILL');
    await parts.attachGlue();
    await parts.waitForMapped(0);
    await expect.poll(async () => (await parts.guest.virtfns()).length, BY_A_GUEST).toBe(vfs);
    await parts.guest.expectVfContents(vfs);
  });

  it('has no part in what comes after it', async () => {
    await parts.guest.setNumVfs(0);
    // VFs that QEMU still had are tried again at intervals.
    await expect.poll(() => parts.phase(), BY_A_GUEST).toBe('disabled');
    await parts.enableMapped();
    await parts.guest.setNumVfs(0);
  });
});

it('what a VF has in its memory is there with and without its carrier', async () => {
  const { guest } = parts;
  await parts.enableMapped();
  await parts.glue.kill('SIGKILL');
  expect(Number(await guest.readBar(guest.vf(1), Bar.memory))).toBe(0x99);
  expect(parts.mappedInQemu).toBe(VFS);
  await parts.attachGlue();
  await parts.waitForMapped(0);
  expect(Number(await guest.readBar(guest.vf(1), Bar.memory))).toBe(0x99);
  await guest.setNumVfs(0);
});

it('a glue that is told to end takes the memory out first', async () => {
  await parts.enableMapped();
  expect(await parts.glue.kill('SIGTERM')).toBe(0);
  expect(parts.mappedInQemu).toBe(0);
  await parts.guest.expectVfContents(VFS);
  await parts.attachGlue();
  await parts.guest.setNumVfs(0);
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await parts.guest.expectNoComplaints();
});

it.each(POINTS)(
  'after QEMU was killed $when, a new one on the same sockets is as good',
  async ({ reach }) => {
    await reach();
    await parts.killQemu();
    await parts.start();
    expect(await parts.guest.virtfns()).toEqual([]);
    await parts.enableMapped();
    await parts.guest.setNumVfs(0);
  },
);

it.each(POINTS)(
  'when the backend is killed $when, QEMU has nothing of the VFs any more, and a new start is as good',
  async ({ reach }) => {
    await reach();
    await parts.killBackend();
    await parts.startBackend();
    await parts.start();
    await parts.enableMapped();
    await parts.guest.setNumVfs(0);
  },
);
