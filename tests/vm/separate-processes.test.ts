// Backend, QEMU and glue started one by one, as libvirt would: each may be missing, killed, or replaced by a new one.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { CliProcess } from './cli-process.ts';
import { SriovGuest } from './sriov-guest.ts';

const VFS = 3;
const folder = mkdtempSync(join(tmpdir(), 'separate-'));
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
    // Longer than any test: nothing may wait for a QEMU that is dead.
    '--unplug-timeout=600000',
    `--socket-path=${socketPath}`,
    `--vf-sockets=${join(folder, 'vfs')}`,
  );
  const [ready] = await backend.waitFor(/^ready .*$/m);
  const printer = new CliProcess('qemu-args', `--ready=${ready}`, `--qmp=${qmpPath}`, '--json');
  expect(await printer.ended()).toBe(0);
  deviceArguments = JSON.parse(printer.output);
  guest = await bootGuest();
});

afterAll(async () => {
  await guest?.end();
  await glue?.kill('SIGKILL');
  await backend?.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

async function bootGuest(): Promise<SriovGuest> {
  const booted = await SriovGuest.boot({
    starter: (qemu) => ({ command: qemu, args: deviceArguments }),
  });
  await booted.bindDriver('pci-pf-stub');
  return booted;
}

async function attachGlue(): Promise<CliProcess> {
  const from = backend.output.length;
  const attached = new CliProcess('attach-qemu', `--qmp=${qmpPath}`, `--socket-path=${socketPath}`);
  await backend.waitFor(/attached as glue/, from);
  return attached;
}

it('without a glue the guest is told that enabling failed, and the log says what to start', async () => {
  const from = backend.output.length;
  const { status, output } = await guest.vm.run(`echo 1 > ${guest.sysfs}/sriov_numvfs`);
  expect(status).not.toBe(0);
  expect(output).toContain('Input/output error');
  expect(await guest.virtfns()).toEqual([]);
  expect(backend.output.slice(from)).toContain('attach-qemu');
});

it('with a glue attached while the guest runs, enabling works', async () => {
  glue = await attachGlue();
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
});

it('a second glue on the same QEMU is refused', async () => {
  const second = new CliProcess('attach-qemu', `--qmp=${qmpPath}`, `--socket-path=${socketPath}`);
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
  glue = await attachGlue();
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

it('neither the kernel nor QEMU had anything to complain of', () => {
  guest.expectNoComplaints();
});

it('after QEMU was killed with VFs enabled, a new one on the same sockets is as good', async () => {
  guest.vm.killGroup();
  await guest.end();
  guest = await bootGuest();
  expect(await guest.vm.check(`cat ${guest.sysfs}/sriov_totalvfs`)).toBe(String(VFS));
  expect(await guest.virtfns()).toEqual([]);
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
  guest.expectNoComplaints();
});

it('the backend ends cleanly when it is told to', async () => {
  await guest.end();
  expect(await backend.kill('SIGTERM')).toBe(0);
});
