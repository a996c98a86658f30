// Backend, QEMU and glue started one by one, as libvirt would: each may be missing, killed, or replaced by a new one.
import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { CliProcess } from './cli-process.ts';
import { SeparateParts } from './separate-parts.ts';
import type { SriovGuest } from './sriov-guest.ts';

const VFS = 3;
const parts = new SeparateParts('separate');

let backend: CliProcess;
let glue: CliProcess;
let guest: SriovGuest;

beforeAll(async () => {
  backend = await parts.startBackend([
    `--total-vfs=${VFS}`,
    // Longer than any test: nothing may wait for a QEMU that is dead.
    '--unplug-timeout=600000',
  ]);
  guest = await parts.bootGuest();
});

afterAll(async () => {
  await guest?.end();
  await glue?.kill('SIGKILL');
  await backend?.kill('SIGKILL');
  parts.remove();
});

it('without a glue the guest is told that enabling failed, and the log says what to start', async () => {
  const from = backend.output.length;
  const { status, output } = await guest.vm.run(`echo 1 > ${guest.sysfs}/sriov_numvfs`);
  expect(status).not.toBe(0);
  expect(output).toContain('Input/output error');
  expect(await guest.virtfns()).toEqual([]);
  expect(backend.output.slice(from)).toContain('attach-qemu');
});

it('with a glue attached while the guest runs, enabling works', async () => {
  glue = await parts.attachGlue(backend);
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
});

it('a second glue on the same QEMU is refused', async () => {
  const second = new CliProcess(
    'attach-qemu',
    `--qmp=${parts.qmpPath}`,
    `--socket-path=${parts.socketPath}`,
  );
  expect(await second.ended()).toBe(1);
  expect(second.output).toMatch(/another glue|already/);
});

it('VFs work on when the glue is killed', async () => {
  await glue.kill('SIGKILL');
  await guest.expectVfContents(VFS);
});

it('without the killed glue VFs can be taken away, but not made', async () => {
  await guest.setNumVfs(0);
  expect(await guest.virtfns()).toEqual([]);
  const { output } = await guest.vm.run(`echo ${VFS} > ${guest.sysfs}/sriov_numvfs`);
  expect(output).toContain('Input/output error');
});

it('the next glue takes over', async () => {
  glue = await parts.attachGlue(backend);
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
  await guest.setNumVfs(0);
  await guest.setNumVfs(1);
  await guest.expectVfContents(1);
});

it('a glue that hangs costs the guest its VFs, and nothing once it goes on', async () => {
  await guest.setNumVfs(0);
  glue.signal('SIGSTOP');
  const { output } = await guest.vm.run(`echo ${VFS} > ${guest.sysfs}/sriov_numvfs`);
  expect(output).toContain('Input/output error');
  glue.signal('SIGCONT');
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
});

it('a glue that is late, as on a host that is busy, costs the guest time and nothing else', async () => {
  await guest.setNumVfs(0);
  glue.signal('SIGSTOP');
  const enabled = guest.setNumVfs(VFS);
  // Later than the guest looks for its VFs, which is 0.1 s after its write was answered, 0.1 s after it was made.
  await setTimeout(500);
  glue.signal('SIGCONT');
  await enabled;
  await guest.expectVfContents(VFS);
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});

it('after QEMU was killed with VFs enabled, a new one on the same sockets is as good', async () => {
  guest.vm.killGroup();
  await guest.end();
  guest = await parts.bootGuest();
  expect(await guest.vm.check(`cat ${guest.sysfs}/sriov_totalvfs`)).toBe(String(VFS));
  expect(await guest.virtfns()).toEqual([]);
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
  await guest.expectNoComplaints();
});

it('the backend ends cleanly when it is told to', async () => {
  await guest.end();
  expect(await backend.kill('SIGTERM')).toBe(0);
});
