// A virtual host as its users have it: Debian trixie, systemd as process 1, libvirt, QEMU, and KVM by software emulation. Its
// root is read from this machine and written to a disk of the test's own: each test finds it as it was made, and a host that
// reboots as it was left.
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { GuestVmOptions } from '../lab/guest.ts';
import { guestArguments } from '../lab/guest-arguments.ts';
import { IGB_DEVICE } from '../lab/host-vm.ts';
import { writeInitramfs } from '../lab/initramfs.ts';
import { lab } from '../lab/lab.ts';
import { LabError } from '../lab/lab-error.ts';
import { ensureMachinePackages } from '../lab/machine.ts';
import { runProgram } from '../lab/run-program.ts';
import { writeUnpackedKernel } from '../lab/unpacked-kernel.ts';
import { hostRoot } from './host-root.ts';

/** Folders of this machine that the host reads, by their places in it. */
export type Folders = Readonly<Record<string, string>>;

/** For its root, for guests of its own, and for the card. */
const MODULES = [
  ...['9pnet_virtio', '9p', 'overlay', 'virtio_blk', 'crc32c_generic', 'ext4'],
  ...['kvm-amd', 'igb', 'vfio-pci', 'vfio_iommu_type1'],
];
/** Of what the host writes; as much of the file as it has written. */
const DISK_BYTES = 4 * 2 ** 30;

/** Where the host sees its own disk: what has been written, and where something was removed. */
export const CHANGED = '/lab/changed';

/** Of no use to what is tested, and slow under emulation. */
const MASKED = [
  'ldconfig.service',
  'libvirt-guests.service',
  'systemd-timesyncd.service',
  'getty@tty1.service',
  'serial-getty@ttyS0.service',
  'systemd-udev-trigger.service',
  'systemd-user-sessions.service',
  'systemd-journal-catalog-update.service',
  'systemd-update-done.service',
  'systemd-random-seed.service',
  'systemd-modules-load.service',
  'systemd-logind.service',
  'systemd-udev-load-credentials.service',
  'systemd-sysctl.service',
  'systemd-sysusers.service',
  'systemd-pstore.service',
  'systemd-journal-flush.service',
  'systemd-ask-password-console.path',
  'systemd-ask-password-wall.path',
  'run-lock.mount',
  'dev-hugepages.mount',
  'dev-mqueue.mount',
  'sys-kernel-config.mount',
  'sys-kernel-debug.mount',
  'sys-kernel-tracing.mount',
  'sys-fs-fuse-connections.mount',
  'modprobe@configfs.service',
  'modprobe@drm.service',
  'modprobe@efi_pstore.service',
  'modprobe@fuse.service',
  'virtlockd.service',
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'fstrim.timer',
  'logrotate.timer',
  'systemd-tmpfiles-clean.timer',
];

const AGENT_UNIT = `[Unit]
Description=What runs the test's commands
After=libvirtd.socket
[Service]
ExecStart=/bin/sh /lab/agent
Environment=HOME=/root
KillMode=process
[Install]
WantedBy=multi-user.target
`;

/** Of all profiles libvirt needs these two; reading every one takes a minute. */
const APPARMOR_DROP_IN = `[Service]
ExecStart=
ExecStart=/sbin/apparmor_parser -r /etc/apparmor.d/usr.sbin.libvirtd /etc/apparmor.d/usr.lib.libvirt.virt-aa-helper
`;

/** polkit is a daemon and a program for each virsh, and libvirtd one that ends and starts anew. */
const LIBVIRT_SCRIPT = `echo 'auth_unix_rw = "none"' > /root/etc/libvirt/libvirtd.conf
rm -f /root/usr/bin/pkttyagent
echo LIBVIRTD_ARGS= > /root/etc/default/libvirtd
`;

/** systemd runs all its generators whenever it reads its units, and none of them finds anything here. */
const GENERATORS_SCRIPT = `cd /root/usr/lib/systemd/system-generators
mkdir -p /root/etc/systemd/system-generators
for generator in *; do ln -sf /dev/null /root/etc/systemd/system-generators/$generator; done
cd /
`;

/**
 * libvirt has a domain's AppArmor profile compiled six times a start, and to make its automaton small takes half of that. Packages are
 * unpacked without waiting for the disk.
 */
const TOOLS_SCRIPT = `echo Optimize=no-minimize >> /root/etc/apparmor/parser.conf
echo force-unsafe-io > /root/etc/dpkg/dpkg.cfg.d/unsafe-io
`;

/** What GuestVm.start takes; the boot ends when its agent answers. `folder`: of the test's own. */
export async function systemdHost(folder: string, folders: Folders): Promise<GuestVmOptions> {
  const { kernel: packed, modules, busybox, qemu } = await lab();
  const kernel = join(folder, 'host-kernel');
  await writeUnpackedKernel(packed, kernel);
  const shares = Object.entries(folders).map(([at, path], index) => ({
    at,
    path,
    tag: `share${index}`,
  }));
  const initrd = await writeInitramfs({
    file: join(folder, 'host-initrd'),
    busybox,
    modulesFolder: modules,
    loadableModules: MODULES,
    init: initScript(shares),
  });
  const args = guestArguments({
    kernel,
    initrd,
    memoryMegabytes: 3072,
    machineProperties: ['kernel-irqchip=split'],
    append: [
      'net.ifnames=0',
      'intel_iommu=on',
      'apparmor=1',
      'security=apparmor',
      // What is slow under emulation, and nobody's here: a flush of the whole TLB for each page of a huge one, retpolines, and zeroes
      // in all memory that is allocated.
      'transparent_hugepage=never',
      'mitigations=off',
      'init_on_alloc=0',
    ],
  });
  return {
    command: qemu,
    args: [
      ...args,
      // The IOMMU comes first: it serves only the devices that are made after it.
      ...['-device', 'intel-iommu,intremap=on,caching-mode=on'],
      ...IGB_DEVICE,
      ...(await diskArguments(join(folder, 'disk'))),
      ...shareArguments('root', await hostRoot(), 0),
      ...shares.flatMap(({ tag, path }, index) => shareArguments(tag, path, index + 1)),
    ],
  };
}

function initScript(shares: readonly { tag: string; at: string }[]): string {
  const mount = (tag: string, at: string) =>
    `mkdir -p ${at}\nmount -t 9p -o ro,cache=loose,trans=virtio,version=9p2000.L,msize=1048576 ${tag} ${at}\n`;
  const unit = '/root/etc/systemd/system';
  return `#!/bin/sh
# First program of the host: puts memory over its root, and hands over to systemd.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in ${MODULES.join(' ')}; do load $module; done
${mount('root', '/lower')}mkdir -p /upper /root
mount -t ext4 /dev/vda /upper
# Nothing waits for the disk but the host's end; a boot anew is no crash.
rm -rf /upper/work
mkdir -p /upper/changed /upper/work
mount -t overlay -o volatile,lowerdir=/lower,upperdir=/upper/changed,workdir=/upper/work overlay /root
${shares.map(({ tag, at }) => mount(tag, `/root${at}`)).join('')}mkdir -p /root/lab ${unit}/multi-user.target.wants ${unit}/apparmor.service.d
cp /lab/agent /root/lab/agent
cat > ${unit}/lab-agent.service <<'END'
${AGENT_UNIT}END
cat > ${unit}/apparmor.service.d/few.conf <<'END'
${APPARMOR_DROP_IN}END
ln -sf ../lab-agent.service ${unit}/multi-user.target.wants/
${LIBVIRT_SCRIPT}${TOOLS_SCRIPT}${GENERATORS_SCRIPT}${MASKED.map((name) => `ln -sf /dev/null ${unit}/${name}\n`).join('')}echo host > /root/etc/hostname
mkdir -p /root${CHANGED}
mount --bind /upper/changed /root${CHANGED}
umount /proc
umount /sys
mount --move /dev /root/dev
exec switch_root /root /sbin/init
`;
}

/** An empty file system, which need not outlive this machine. */
async function diskArguments(file: string): Promise<string[]> {
  await ensureMachinePackages(['e2fsprogs']);
  await writeFile(file, '');
  await truncate(file, DISK_BYTES);
  const mkfs = ['-q', '-F', '-O', '^has_journal', file];
  const { status, stderr } = await runProgram('/usr/sbin/mkfs.ext4', mkfs);
  if (status !== 0) {
    throw new LabError('mkfs.ext4', stderr, 'make room where temporary files are');
  }
  return [
    ...['-drive', `file=${file},if=none,id=disk,format=raw,cache=unsafe,discard=unmap`],
    ...['-device', 'virtio-blk-pci,drive=disk,addr=0xf'],
  ];
}

function shareArguments(tag: string, path: string, index: number): string[] {
  return [
    ...['-fsdev', `local,id=${tag},path=${path},security_model=none,readonly=on`],
    ...[
      '-device',
      `virtio-9p-pci,fsdev=${tag},mount_tag=${tag},addr=0x${(0x10 + index).toString(16)}`,
    ],
  ];
}
