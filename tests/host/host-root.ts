// The file system of a Debian trixie with systemd, libvirt and QEMU of trixie-backports: made once, kept in the lab's cache,
// and never written to by a guest. Needs root, as chroot does.
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cachedPart, cacheFolder, withLock } from '../lab/cache.ts';
import { LabError } from '../lab/lab-error.ts';
import { debianMirror, ensureMachinePackages } from '../lab/machine.ts';
import { step } from '../lab/progress.ts';
import { runProgram } from '../lab/run-program.ts';

/** The number counts changes of what is in it. */
const PART = 'systemd-host-1';
const BASE = [
  'systemd',
  'systemd-sysv',
  'dbus',
  'udev',
  'kmod',
  'apparmor',
  'debian-archive-keyring',
];
const OF_TRIXIE = [
  'nodejs',
  'libvirt-daemon-system',
  'libvirt-clients',
  'libvirt-daemon-driver-qemu',
];
const OF_BACKPORTS = ['qemu-system-x86'];
/** No service starts while the root is made. */
const NO_SERVICES = '#!/bin/sh\nexit 101\n';

/** The folder. Throws LabError. */
export async function hostRoot(): Promise<string> {
  const folder = cacheFolder();
  await ensureMachinePackages(['debootstrap', 'debian-archive-keyring']);
  await withLock(folder, () =>
    cachedPart(folder, PART, (target) =>
      step('making a Debian trixie with systemd, libvirt and QEMU', () => build(target)),
    ),
  );
  return join(folder, PART);
}

async function build(target: string): Promise<void> {
  const mirror = await debianMirror();
  await run(
    'debootstrap',
    '--variant=minbase',
    `--include=${BASE.join(',')}`,
    'trixie',
    target,
    mirror,
  );
  await writeFile(join(target, 'usr/sbin/policy-rc.d'), NO_SERVICES, { mode: 0o755 });
  await writeFile(
    join(target, 'etc/apt/sources.list.d/backports.list'),
    `deb ${mirror} trixie-backports main\n`,
  );
  const install = ['install', '-y', '-qq', '--no-install-recommends'];
  await inRoot(target, 'update', '-qq');
  await inRoot(target, ...install, ...OF_TRIXIE);
  await inRoot(target, ...install, '-t', 'trixie-backports', ...OF_BACKPORTS);
  await inRoot(target, 'clean');
  await rm(join(target, 'usr/sbin/policy-rc.d'));
}

function inRoot(target: string, ...apt: string[]): Promise<void> {
  return run('chroot', target, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', ...apt);
}

async function run(command: string, ...args: string[]): Promise<void> {
  const { status, stderr } = await runProgram(command, args);
  if (status !== 0) {
    throw new LabError(
      `${command} ${args.join(' ')}`,
      stderr.trim(),
      'check the network, then run it again',
    );
  }
}
