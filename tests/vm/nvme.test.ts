// The NVMe device, bound by the in-tree driver of a guest: PF and VFs hold a file system each, and data survives what
// happens to functions meanwhile.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { amountOf } from '../full.ts';
import { guestToolFiles } from '../lab/guest-tools.ts';
import { Recording } from './recording.ts';
import { CLI, SriovGuest } from './sriov-guest.ts';

const VFS = 4;
const MINUTES = 60_000;
const MIB = 2 ** 20;
/** The story of a day's use is told so many times, in one guest. */
const ROUNDS = Array.from({ length: amountOf({ usual: 3, full: 20 }) }, (_, index) => index + 1);

const AER_CAPABILITY = 0x1;

const recording = new Recording();
const folder = mkdtempSync(join(tmpdir(), 'nvme-'));
const disk = join(folder, 'disk');
const socketPath = `--socket-path=${join(folder, 'pf.sock')}`;
let guest: SriovGuest;

beforeAll(async () => {
  writeFileSync(disk, '');
  truncateSync(disk, (1 + VFS) * 64 * MIB);
  await boot();
});

async function boot(): Promise<void> {
  guest = await SriovGuest.boot({
    device: ['--device=nvme', '--total-vfs=4', '--serial=LAB1', `--namespace=${disk},split`],
    launcher: [...recording.options, '--trap=pf,vfs', socketPath],
    modules: ['nvme', 'ext4', 'crc32c_generic'],
    memoryMegabytes: 768,
    files: await guestToolFiles(['nvme', 'mkfs.ext4', 'fio']),
  });
}

afterAll(async () => {
  await guest?.end();
  recording.remove();
  rmSync(folder, { recursive: true, force: true });
});

/** PF first, then the VFs. */
function functions(): string[] {
  return [guest.pf, ...Array.from({ length: VFS }, (_, vf) => guest.vf(vf))];
}

/** The block device of a function's namespace, once there is one. */
async function diskOf(address: string): Promise<string> {
  return await guest.vm.check(
    `cd /sys/bus/pci/devices/${address}/nvme/nvme*/ && for try in $(seq 100); do ` +
      'ls -d nvme*n* >/dev/null 2>&1 && break; sleep 0.1; done; ls -d nvme*n* | head -n1',
  );
}

async function controllerOf(address: string): Promise<string> {
  return await guest.vm.check(`basename /sys/bus/pci/devices/${address}/nvme/nvme*`);
}

/** Runs one command for each disk at the same time, `$disk` and `$i` in it; fails where one of them fails. */
async function onEach(disks: readonly string[], command: string): Promise<string> {
  const script = `set -e; i=$1; disk=$2; ${command}`;
  return await guest.vm.check(
    `cat > /tmp/each <<'END'\n${script}\nEND\n` +
      `i=0; pids=; for disk in ${disks.join(' ')}; do sh /tmp/each $i $disk & pids="$pids $!"; i=$((i + 1)); done; ` +
      'failed=0; for pid in $pids; do wait $pid || failed=1; done; exit $failed',
    { timeoutMs: 2 * MINUTES },
  );
}

function fio(disk: string, more: string): string {
  return (
    `fio --name=verify --filename=/dev/${disk} --rw=randrw --bs=4k-64k --size=8M --direct=1 --ioengine=libaio ` +
    `--iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 --minimal --allow_file_create=0 ${more}`
  );
}

/** The sum of the first 8 MiB: reading all of it takes an emulated processor seconds. */
async function sumOf(disk: string): Promise<string> {
  return await guest.vm.check(`head -c 8388608 /dev/${disk} | sha256sum`);
}

/** A disk takes data, and gives it back. */
const KEEPS_DATA =
  'dd if=/dev/urandom of=/tmp/data$i bs=64k count=8 2>/dev/null; ' +
  'dd if=/tmp/data$i of=/dev/$disk bs=64k oflag=direct 2>/dev/null; ' +
  'dd if=/dev/$disk bs=64k count=8 iflag=direct 2>/dev/null | cmp - /tmp/data$i';

async function disksOf(addresses: readonly string[]): Promise<string[]> {
  const disks: string[] = [];
  for (const address of addresses) {
    disks.push(await diskOf(address));
  }
  return disks;
}

it('the driver binds the PF by itself, and finds its namespace', async () => {
  const disk = await diskOf(guest.pf);
  expect(await guest.vm.check(`cat /sys/block/${disk}/size`)).toBe(String(64 * 2048));
  const controller = await controllerOf(guest.pf);
  expect(await guest.vm.check(`nvme id-ctrl /dev/${controller}`)).toMatch(/sn +: LAB1\s/);
  expect(await guest.vm.check(`nvme smart-log /dev/${controller}`)).toMatch(
    /critical_warning\s*: 0\s/,
  );
});

it('and every VF, as a controller of the same subsystem, which the PF lists', async () => {
  await guest.setNumVfs(VFS);
  const disks = await disksOf(functions());
  expect(new Set(disks).size).toBe(1 + VFS);
  const list = await guest.vm.check(
    `nvme list-secondary /dev/${await controllerOf(guest.pf)} -o json`,
  );
  const entries = JSON.parse(list)['secondary-controllers'];
  expect(entries).toHaveLength(VFS);
  expect(entries[3]).toMatchObject({
    'secondary-controller-identifier': 4,
    'secondary-controller-state': 1,
    'virtual-function-number': 4,
  });
});

it('the recording of it breaks no rule, has NVMe’s registers by name, and names nothing as unseen', () => {
  recording.expectClean();
  expect(recording.trace('--explain')).not.toContain('because it was mapped');
  const writes = recording.trace('--only=writes');
  expect(writes).toMatch(/pf +W NVMe CC +0x[0-9a-f]{8} {2}enable (0|\?)→1/);
  expect(writes).toMatch(/vf3 +W NVMe SQ 1 Tail Doorbell +0x/);
});

describe.each(ROUNDS)('round %i: PF and VFs', () => {
  it('all hold a file system each, and give back what was written', async () => {
    const disks = await disksOf(functions());
    await onEach(
      disks,
      'mkfs.ext4 -q -F /dev/$disk; mkdir -p /tmp/mount$i; mount -t ext4 /dev/$disk /tmp/mount$i; ' +
        'dd if=/dev/urandom of=/tmp/mount$i/data bs=64k count=128 2>/dev/null; ' +
        'sha256sum < /tmp/mount$i/data > /tmp/sum$i; umount /tmp/mount$i; ' +
        'mount -t ext4 /dev/$disk /tmp/mount$i; sha256sum < /tmp/mount$i/data | cmp - /tmp/sum$i; umount /tmp/mount$i',
    );
  });

  it('all pass fio with verification at the same time', async () => {
    await onEach(await disksOf(functions()), fio('$disk', '> /dev/null'));
  });

  it('keep what they hold while their driver is unbound and bound again', async () => {
    const [disk] = await disksOf([guest.vf(1)]);
    const before = await sumOf(disk!);
    await guest.vm.check(
      `echo ${guest.vf(1)} > /sys/bus/pci/drivers/nvme/unbind && echo ${guest.vf(1)} > /sys/bus/pci/drivers/nvme/bind`,
    );
    expect(await sumOf(await diskOf(guest.vf(1)))).toBe(before);
  });

  it.each(['PF', 'VF'])(
    'a function level reset of the %s under I/O loses nothing',
    async (which) => {
      const address = which === 'PF' ? guest.pf : guest.vf(2);
      const disk = await diskOf(address);
      // A reset of the PF would take the VFs along.
      if (which === 'PF') {
        await guest.setNumVfs(0);
      }
      await guest.vm.check(
        `${fio(disk, '--loops=4 > /dev/null')} & pid=$!; sleep 1; ` +
          `for i in 1 2 3; do echo 1 > /sys/bus/pci/devices/${address}/reset || exit 1; sleep 0.3; done; wait $pid`,
        { timeoutMs: 2 * MINUTES },
      );
      await guest.setNumVfs(VFS);
    },
  );

  it('VFs that are disabled under I/O end in errors, and the guest goes on', async () => {
    const disks = await disksOf(functions().slice(1));
    const writers = disks
      .map((disk) => `${fio(disk, '--loops=1000 > /dev/null 2>&1')} &`)
      .join(' ');
    const output = await guest.vm.check(
      `${writers} sleep 1; echo 0 > ${guest.sysfs}/sriov_numvfs; for pid in $(jobs -p); do wait $pid; echo $?; done`,
      { timeoutMs: 2 * MINUTES },
    );
    expect(output.split('\n').every((status) => status !== '0')).toBe(true);
    await guest.setNumVfs(VFS);
    await onEach(await disksOf(functions()), KEEPS_DATA);
  });

  it('a restart with VFs enabled begins without any, and all is there', async () => {
    const sum = await sumOf(await diskOf(guest.pf));
    await guest.reboot();
    expect(await sumOf(await diskOf(guest.pf))).toBe(sum);
    await guest.setNumVfs(VFS);
    await onEach(await disksOf(functions()), KEEPS_DATA);
  });
});

/** `fault add RULE`, or `fault clear`. */
function fault(...args: string[]): void {
  execFileSync(process.execPath, [CLI, 'fault', ...args, socketPath]);
}

it('what is to go wrong goes wrong for the driver, which gets over it', async () => {
  const disk = await diskOf(guest.pf);
  const read = `dd if=/dev/${disk} of=/dev/null bs=4k count=4 iflag=direct`;
  fault('add', 'nvme:status=unrecovered-read-error@opcode=read,function=pf');
  // Linux tells a medium error as ENODATA.
  expect((await guest.vm.run(read)).output).toContain('No data available');
  fault('clear');
  await guest.vm.check(read);

  await guest.setNumVfs(0);
  fault('add', 'vf-enable:fail');
  await expect(guest.setNumVfs(VFS)).rejects.toThrow();
  fault('clear');
  await guest.setNumVfs(VFS);

  const status = (await guest.extendedCapability(AER_CAPABILITY)) + 0x10;
  fault('add', 'aer:correctable@function=pf');
  expect(await guest.readConfig(guest.pf, status, 4)).toBe(1);
  await guest.writeConfig(guest.pf, status, 4, 1);
  expect(await guest.readConfig(guest.pf, status, 4)).toBe(0);

  fault('add', 'config-read:all-ones@times=1,function=pf');
  expect(await guest.readConfig(guest.pf, 0, 4)).toBe(0xffff_ffff);
  fault('clear');
  await onEach(await disksOf(functions()), fio('$disk', '> /dev/null'));
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});

it('another backend, in another VM, finds in the file what PF and VFs have flushed', async () => {
  const patterns = 'tr "\\0" "$i" < /dev/zero | head -c 1048576 | tee /dev/$disk | sha256sum; sync';
  const check = 'head -c 1048576 /dev/$disk | sha256sum';
  const written = await onEach(await disksOf(functions()), patterns);
  await guest.end();
  await boot();
  await guest.setNumVfs(VFS);
  const found = await onEach(await disksOf(functions()), check);
  expect(found.split('\n').toSorted()).toEqual(written.split('\n').toSorted());
  await guest.expectNoComplaints();
});
