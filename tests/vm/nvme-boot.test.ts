// A guest that OVMF boots from the PF's namespace: kernel and initramfs are files on it, and QEMU is given neither. Under --full.
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IS_FULL } from '../full.ts';
import { fatImage } from '../lab/fat-image.ts';
import { efiArguments } from '../lab/firmware.ts';
import { GuestVm } from '../lab/guest.ts';
import { guestArguments, kernelParameters } from '../lab/guest-arguments.ts';
import { writeInitramfs } from '../lab/initramfs.ts';
import { lab } from '../lab/lab.ts';
import { CLI } from './sriov-guest.ts';

const DISK_BYTES = 128 << 20;
const PF = '0000:01:00.0';
/** OVMF looks at everything else first. */
const BOOT_TIMEOUT_MS = 240_000;

describe.runIf(IS_FULL)('OVMF', () => {
  const folder = mkdtempSync(join(tmpdir(), 'nvme-boot-'));
  const disk = join(folder, 'disk');
  let vm: GuestVm;

  beforeAll(async () => {
    const paths = await lab();
    const initrd = await writeInitramfs({
      file: join(folder, 'initrd'),
      busybox: paths.busybox,
      modulesFolder: paths.modules,
      modules: ['nvme'],
    });
    // The shell that OVMF has runs this of the first file system.
    const script = `fs0:\\KERNEL.EFI initrd=\\INITRD ${kernelParameters(['from=namespace'])}\r\n`;
    const files = [
      { name: 'STARTUP.NSH', content: Buffer.from(script) },
      { name: 'KERNEL.EFI', content: await readFile(paths.kernel) },
      { name: 'INITRD', content: await readFile(initrd) },
    ];
    writeFileSync(disk, fatImage(DISK_BYTES, files));
    truncateSync(disk, DISK_BYTES);
    const device = ['--device=nvme', '--total-vfs=2', `--namespace=${disk}`];
    vm = await GuestVm.start({
      command: process.execPath,
      args: [
        ...[CLI, 'qemu', ...device, '--', paths.qemu],
        ...guestArguments({ memoryMegabytes: 512 }),
        ...(await efiArguments(join(folder, 'variables.fd'))),
      ],
    });
    await vm.waitForBoot({ timeoutMs: BOOT_TIMEOUT_MS });
  }, BOOT_TIMEOUT_MS + 60_000);

  afterAll(async () => {
    await vm?.kill();
    rmSync(folder, { recursive: true, force: true });
  });

  it('boots a guest from the namespace of the PF', async () => {
    expect(await vm.check('ls /sys/firmware/efi')).toContain('systab');
    expect(await vm.check('cat /proc/cmdline')).toContain('from=namespace');
  });

  it('whose driver binds the PF that it was booted from, and its VFs', async () => {
    const size = `cat /sys/bus/pci/devices/${PF}/nvme/nvme*/nvme*n1/size`;
    expect(await vm.check(`sleep 1; ${size}`)).toBe(String(DISK_BYTES / 512));
    await vm.check(`echo 2 > /sys/bus/pci/devices/${PF}/sriov_numvfs`);
    const bound = await vm.check('ls -d /sys/bus/pci/drivers/nvme/0000:01:*');
    expect(bound.split('\n')).toHaveLength(3);
  });
});
