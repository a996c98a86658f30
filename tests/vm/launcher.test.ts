// `vfio-user-sriov qemu` ends together what it started together, whichever of the three is killed.
import { existsSync } from 'node:fs';
import { afterEach, expect, it } from 'vitest';
import { BY_A_GUEST } from '../patience.ts';
import { SriovGuest } from './sriov-guest.ts';

let guest: SriovGuest;

afterEach(async () => {
  await guest?.end();
});

function isRunning(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

/** The private folder of the launcher, as its QEMU was told. */
function folderOf(log: string): string {
  return /"(\/[^"]*)\/pf\.sock/.exec(log)![1]!;
}

it('when the backend is killed, QEMU is ended and the status tells of it', async () => {
  guest = await SriovGuest.boot();
  const { backend, qemu } = await guest.launched();
  process.kill(backend, 'SIGKILL');
  expect((await guest.vm.waitForExit()).code).toBe(1);
  expect(guest.vm.processOutput).toMatch(/backend has ended.*SIGKILL/);
  expect(isRunning(qemu)).toBe(false);
});

it('when QEMU is killed, the backend ends and nothing is left', async () => {
  guest = await SriovGuest.boot({ launcher: ['--log-level=debug', '--log-format=json'] });
  const { backend, qemu } = await guest.launched();
  const folder = folderOf(guest.vm.processOutput.replaceAll('\\', ''));
  expect(existsSync(folder)).toBe(true);
  process.kill(qemu, 'SIGKILL');
  expect((await guest.vm.waitForExit()).code).toBe(128 + 9);
  expect(isRunning(backend)).toBe(false);
  expect(existsSync(folder)).toBe(false);
});

it('when the launcher itself is killed, both end and nothing is left', async () => {
  guest = await SriovGuest.boot({ launcher: ['--log-level=debug', '--log-format=json'] });
  const { backend, qemu } = await guest.launched();
  const folder = folderOf(guest.vm.processOutput.replaceAll('\\', ''));
  process.kill(guest.vm.pid, 'SIGKILL');
  await guest.vm.waitForExit();
  await expect
    .poll(() => [isRunning(backend), isRunning(qemu)], BY_A_GUEST)
    .toEqual([false, false]);
  await expect.poll(() => existsSync(folder), BY_A_GUEST).toBe(false);
});
