// The virtual host of the lab: Node.js with koffi, an SR-IOV card behind an IOMMU, and a QEMU for nested guests.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { GuestVm } from '../lab/guest.ts';
import { guestArguments } from '../lab/guest-arguments.ts';
import { hostVm } from '../lab/host-vm.ts';
import { writeInitramfs } from '../lab/initramfs.ts';
import { type Lab, lab } from '../lab/lab.ts';

let paths: Lab;
let folder: string;
let vm: GuestVm;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'host-vm-test-'));
  paths = await lab();
  await writeInitramfs({
    file: join(folder, 'nested', 'initrd'),
    busybox: paths.busybox,
    modulesFolder: paths.modules,
    script: 'echo "nested guest is up"',
    agent: false,
  });
  const description = await hostVm({
    lab: paths,
    folder,
    shares: [{ path: '/nested', source: join(folder, 'nested') }],
    modules: ['vfio-pci enable_sriov=1', 'vfio_iommu_type1'],
    loadableModules: ['kvm-amd'],
  });
  vm = await GuestVm.start(description);
  await vm.waitForBoot();
});

afterAll(async () => {
  await vm?.kill();
  await rm(folder, { recursive: true, force: true });
});

it('the Node.js of this machine runs in the virtual host', async () => {
  expect(await vm.check("node -p 'process.version'")).toBe(process.version);
});

it('koffi calls the C library from the mounted project', async () => {
  const script = [
    "const koffi = require('/project/node_modules/koffi');",
    "const getppid = koffi.load('libc.so.6').func('int getppid()');",
    'console.log(getppid() === process.ppid);',
  ].join(' ');
  expect(await vm.check(`node -e "${script}"`)).toBe('true');
});

it('the card is an SR-IOV PF that vfio-pci takes and VFIO offers by its IOMMU group', async () => {
  const card = '/sys/bus/pci/devices/0000:01:00.0';
  expect(await vm.check(`cat ${card}/vendor ${card}/device ${card}/sriov_totalvfs`)).toBe(
    '0x8086\n0x10c9\n8',
  );
  await vm.check(`echo vfio-pci > ${card}/driver_override`);
  await vm.check('echo 0000:01:00.0 > /sys/bus/pci/drivers/vfio-pci/bind');
  const group = await vm.check(`basename $(readlink ${card}/iommu_group)`);
  expect(await vm.check('ls /dev/vfio')).toBe(`${group}\nvfio`);
});

it('a nested guest boots on its QEMU with hardware virtualisation', async () => {
  await vm.check('load kvm-amd');
  await vm.check('/usr/bin/qemu-system-x86_64 --version');
  const args = guestArguments({
    kernel: `/boot/${basename(paths.kernel)}`,
    initrd: '/nested/initrd',
    memoryMegabytes: 128,
    accelerator: 'kvm',
  });
  const command = ['qemu-system-x86_64', '-serial', 'stdio', ...args].map((it) => `'${it}'`);
  const output = await vm.check(command.join(' '), { timeoutMs: 120_000 });
  expect(output).toContain('nested guest is up');
});
