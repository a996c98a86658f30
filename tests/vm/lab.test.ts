// The lab itself: its guest boots, runs commands, restarts and ends, and failures show what happened.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { GuestVm } from '../lab/guest.ts';
import { guestArguments } from '../lab/guest-arguments.ts';
import { writeInitramfs } from '../lab/initramfs.ts';
import { type Lab, lab } from '../lab/lab.ts';

let paths: Lab;
let folder: string;
let vm: GuestVm;

beforeAll(async () => {
  paths = await lab();
  folder = await mkdtemp(join(tmpdir(), 'lab-test-'));
  const initrd = await writeInitramfs({
    file: join(folder, 'initrd'),
    busybox: paths.busybox,
    modulesFolder: paths.modules,
    modules: ['pci-pf-stub', 'igb'],
    loadableModules: ['vfio-pci'],
    files: [{ path: '/etc/greeting', content: 'hello from outside\n' }],
    script: 'echo "script ran" >/tmp/script-ran',
  });
  vm = await GuestVm.start({
    command: paths.qemu,
    args: guestArguments({ kernel: paths.kernel, initrd }),
  });
  await vm.waitForBoot();
});

afterAll(async () => {
  await vm?.kill();
  await rm(folder, { recursive: true, force: true });
});

it('a command in the guest gives its status and all that it printed', async () => {
  expect(await vm.run('echo out; echo err >&2; exit 3')).toEqual({
    status: 3,
    output: 'out\nerr\n',
  });
});

it('the guest runs the kernel whose modules the lab names', async () => {
  const version = await vm.check('uname -r');
  expect(paths.modules.endsWith(`/${version}`)).toBe(true);
});

it('files, script and modules are in place when the guest is up', async () => {
  expect(await vm.check('cat /etc/greeting /tmp/script-ran')).toBe(
    'hello from outside\nscript ran',
  );
  expect(
    await vm.check('ls -d /sys/bus/pci/drivers/igb /sys/bus/pci/drivers/pci-pf-stub'),
  ).toContain('igb');
});

it('a module can be loaded later, with parameters, and brings what it depends on', async () => {
  await vm.check('load vfio-pci enable_sriov=1');
  expect(await vm.check('cat /sys/module/vfio_pci/parameters/enable_sriov')).toBe('Y');
});

it('output of many lines comes back whole while the kernel talks on the console', async () => {
  const output = await vm.check(
    'for i in $(seq 1 300); do echo "line $i"; echo "noise $i" >/dev/kmsg; done',
  );
  expect(output.split('\n')).toHaveLength(300);
  expect(output.endsWith('line 300')).toBe(true);
});

it('a command longer than a terminal line arrives whole', async () => {
  const text = 'x'.repeat(10_000);
  expect(await vm.check(`echo ${text} | wc -c`)).toBe('10001');
});

it('a command that does not end is ended, reported, and leaves the guest usable', async () => {
  await expect(vm.run('echo begun; sleep 100', { timeoutMs: 2_000 })).rejects.toThrow(
    /took longer than 2000 ms[\s\S]*begun/,
  );
  expect(await vm.check('echo alive')).toBe('alive');
});

it('the guest restarts within the same QEMU and has forgotten everything', async () => {
  await vm.check('touch /tmp/mark');
  await vm.reboot();
  expect(vm.bootCount).toBe(2);
  expect((await vm.run('ls /tmp/mark')).status).not.toBe(0);
});

it('a QEMU that refuses its arguments is reported with what it said', async () => {
  const broken = await GuestVm.start({ command: paths.qemu, args: ['-device', 'no-such-device'] });
  await expect(broken.waitForBoot()).rejects.toThrow(/ended with 1[\s\S]*no-such-device/);
});

it('a program that is not there is reported', async () => {
  const broken = await GuestVm.start({ command: '/no/such/qemu', args: [] });
  await expect(broken.waitForBoot()).rejects.toThrow(/\/no\/such\/qemu/);
});

it('a guest that panics is reported at once', async () => {
  const panicking = await GuestVm.start({
    command: paths.qemu,
    args: [
      ...guestArguments({
        kernel: paths.kernel,
        initrd: join(folder, 'initrd'),
        append: ['rdinit=/bin/false'],
      }),
    ],
  });
  await expect(panicking.waitForBoot()).rejects.toThrow(/Kernel panic/);
  await panicking.kill();
});

it('the guest switches off and QEMU ends', async () => {
  expect(await vm.powerOff()).toEqual({ code: 0, signal: null });
});
