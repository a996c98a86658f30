// The package on a host as its users have it: Debian trixie, systemd, libvirt, AppArmor and QEMU of trixie-backports, from the
// installation over a reboot to the removal. A device in RAM is what the domain gets; an emulated igb is what `prepare` gets.
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GuestVm } from '../lab/guest.ts';
import { lab } from '../lab/lab.ts';
import { writeUnpackedKernel } from '../lab/unpacked-kernel.ts';
import { CONSOLE, DOMAIN, INNER, INNER_READY, writeDomainInitrd } from './domain.ts';
import { MAP_MEMORY } from './map-memory.ts';
import { emptyQcow2 } from './qcow2.ts';
import { CHANGED, systemdHost } from './systemd-host.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const PF = '0000:01:00.0';
const SERVICE = 'vfio-user-sriov@loop.service';
const GLUE = 'vfio-user-sriov-glue@loop.service';
const FOLDER = '/run/vfio-user/loop';
/** A program starts in seconds where it is emulated, and in tens of them where the machine is busy. */
const SLOW = { timeoutMs: 500_000 };

/** In the domain's guest. */
const IN_GUEST = 'cd /sys/bus/pci/devices; P=$(dirname */sriov_totalvfs)';
const ENABLE = `${IN_GUEST}; echo pci-pf-stub > $P/driver_override; echo $P > ../drivers_probe; echo 2 > $P/sriov_numvfs && ls -d \${P%.0}.*`;
const DISABLE = `${IN_GUEST}; echo 0 > $P/sriov_numvfs && ls -d \${P%.0}.*`;

const DROP_IN = `[Service]
ExecStartPre=
Environment=DEVICE=--loopback
Environment=OPTIONS=--total-vfs=2
TimeoutStartSec=180
# One that is stopped does not end by itself.
TimeoutAbortSec=2
`;
/** Of the card's units, which take longer here than on any host. */
const SLOW_START = '[Service]\\nTimeoutStartSec=300\\n';

let folder: string;
let host: GuestVm;

const makePackage = (into: string) =>
  promisify(execFile)(process.execPath, [join(ROOT, 'packaging/deb/build.mjs'), into]);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'host-test-'));
  const share = join(folder, 'share');
  mkdirSync(share);
  const { kernel } = await lab();
  await writeUnpackedKernel(kernel, join(share, 'kernel'));
  await writeDomainInitrd(join(share, 'initrd'));
  writeFileSync(join(share, 'domain.xml'), DOMAIN);
  writeFileSync(join(share, 'drop-in.conf'), DROP_IN);
  writeFileSync(join(share, 'map-memory.mjs'), MAP_MEMORY);
  writeFileSync(join(share, 'disk.qcow2'), emptyQcow2(2 ** 20));
  for (const [name, text] of Object.entries({
    console: CONSOLE,
    'inner-ready': INNER_READY,
    inner: INNER,
  })) {
    writeFileSync(join(share, name), text);
    chmodSync(join(share, name), 0o755);
  }
  host = await GuestVm.start(await systemdHost(folder, { '/lab/share': share }));
  await Promise.all([makePackage(share), host.waitForBoot({ timeoutMs: 300_000 })]);
}, 600_000);

afterAll(async () => {
  await host?.kill();
  rmSync(folder, { recursive: true, force: true });
});

const check = (command: string) => host.check(`export PATH=$PATH:/lab/share; ${command}`, SLOW);
const run = (command: string) => host.run(`export PATH=$PATH:/lab/share; ${command}`, SLOW);
const mainPid = (unit: string) => check(`systemctl show -P MainPID ${unit}`);
const statusText = () => check(`systemctl show -P StatusText ${SERVICE}`);
/** Until a test of the shell's is true. */
const until = (condition: string) =>
  check(`for _ in $(seq 150); do [ ${condition} ] && exit; sleep 1; done; exit 1`);
/** Until the state of a unit is that. */
const becomes = (unit: string, state: string) =>
  until(`"$(systemctl is-active ${unit})" = ${state}`);

/** Starts a unit; where it does not start, its log says why. */
const start = (unit: string) =>
  check(
    `systemctl start ${unit} || { journalctl --no-pager -b -o cat -u ${unit} | tail -20; exit 1; }`,
  );

/** Until the glue has attached to a QEMU that often. */
const isAttached = (times: number) =>
  until(`$(journalctl --no-pager -b -u ${GLUE} | grep -c '"attached"') = ${times}`);

it('the package installs, and makes its user', async () => {
  await check('dpkg -i /lab/share/*.deb');
  expect(await check('id -un vfio-user-sriov')).toBe('vfio-user-sriov');
});

describe('the unit', () => {
  /** The process whose device thread stands still, until the watchdog sees that. */
  let stopped: string;

  it('starts with the first client, as an ordinary user without any capability', async () => {
    await check(
      `install -D -m 644 /lab/share/drop-in.conf /etc/systemd/system/${SERVICE}.d/test.conf && systemctl daemon-reload`,
    );
    await check(`systemctl start vfio-user-sriov@loop.socket`);
    expect((await run(`systemctl is-active ${SERVICE}`)).output.trim()).toBe('inactive');
    const status = await check(
      `vfio-user-sriov status --timeout=150000 --socket-path=${FOLDER}/pf.sock`,
    );
    expect(status).toContain('loopback  SR-IOV disabled  0 of 2 VFs');
    await becomes(SERVICE, 'active');
    const process = await check(
      `grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs)' /proc/${await mainPid(SERVICE)}/status`,
    );
    expect(process).not.toMatch(/^Uid:\s+0/m);
    expect(process).toMatch(/^CapEff:\s+0+$/m);
    expect(process).toMatch(/^CapBnd:\s+0+$/m);
    expect(process).toMatch(/^NoNewPrivs:\s+1$/m);
    expect(await statusText()).toBe('loopback: SR-IOV disabled, 0 of 2 VFs');
  });

  it('is started once, however often it is asked to, and its socket is nobody else’s', async () => {
    const pid = await mainPid(SERVICE);
    await check(`systemctl start ${SERVICE}`);
    expect(await mainPid(SERVICE)).toBe(pid);
    const { status, output } = await run(
      `vfio-user-sriov serve --loopback --socket-path=${FOLDER}/pf.sock`,
    );
    expect(status).toBe(1);
    expect(output.trim()).toMatch(/^vfio-user-sriov: bind [^\n]*another process serves it[^\n]*$/);
  });

  it('tells a user who is not in the group of the permission', async () => {
    const { status, output } = await run(
      `setpriv --reuid=nobody --regid=nogroup --clear-groups vfio-user-sriov status --socket-path=${FOLDER}/pf.sock`,
    );
    expect(status).toBe(1);
    expect(output.trim()).toMatch(
      /^vfio-user-sriov: [^\n]*permission denied[^\n]*--socket-group[^\n]*$/,
    );
  });

  it('outlives SIGHUP', async () => {
    stopped = await mainPid(SERVICE);
    await check(`kill -HUP ${stopped}; sleep 1; kill -0 ${stopped}; kill -STOP ${stopped}`);
  });

  it('stands beside a libvirt that takes the domain that the page tells to make', async () => {
    await check(
      `usermod -aG vfio-user-sriov libvirt-qemu
      install -D -m 755 /usr/share/vfio-user-sriov/libvirt/qemu-hook /etc/libvirt/hooks/qemu.d/vfio-user-sriov
      systemctl restart libvirtd
      { cat /lab/share/domain.xml
        vfio-user-sriov qemu-args --libvirt --total-vfs=2 --memory=256M --qmp=${FOLDER}/qmp/qmp.sock \
          --socket-path=${FOLDER}/pf.sock --vf-sockets=${FOLDER}/vfs
        echo '</domain>'
      } > /tmp/sriov.xml
      virsh define /tmp/sriov.xml`,
    );
  });

  it('is started anew after its device thread has stopped', async () => {
    await check(
      `for _ in $(seq 150); do n=$(systemctl show -P MainPID ${SERVICE}); [ $n != ${stopped} ] && [ $n != 0 ] && exit; sleep 1; done; exit 1`,
    );
    expect(await check(`journalctl --no-pager -b -u ${SERVICE}`)).toContain('Watchdog timeout');
    await becomes(SERVICE, 'active');
    await check(`systemctl stop ${SERVICE}`);
  });
});

describe('libvirt', () => {
  it('is told of memory that is private, before anything is started', async () => {
    await check(
      "sed 's/<name>sriov</<name>private</; /<memoryBacking>/d' /tmp/sriov.xml > /tmp/private.xml && virsh define /tmp/private.xml",
    );
    const { status, output } = await run('virsh start private');
    expect(status).toBe(1);
    expect(output).toContain('PF loop: the memory of domain private is private');
    await check('virsh undefine private');
    expect((await run(`systemctl is-active ${SERVICE}`)).output.trim()).toBe('inactive');
  });

  it('starts backend and glue with it, confined by AppArmor, and says why it is tainted', async () => {
    await check('virsh start sriov && console');
    expect(await check('cat /proc/$(pidof qemu-system-x86_64)/attr/current')).toMatch(
      /^libvirt-[0-9a-f-]+ \(enforce\)$/,
    );
    expect(await check('journalctl --no-pager -b -u libvirtd')).toContain(
      'is tainted: custom-argv',
    );
    await isAttached(1);
    expect(await check('virsh qemu-monitor-command sriov --hmp info status')).toContain('running');
    expect(await check('dmesg | grep DENIED | grep libvirt- || true')).toBe('');
  });

  it('its guest enables and disables VFs, which the unit tells', async () => {
    expect(await check(`inner '${ENABLE}'`)).toMatch(/:00\.0\s.*:00\.1\s.*:00\.2/s);
    expect(await statusText()).toBe('loopback: SR-IOV enabled, 2 of 2 VFs');
    expect(await check(`inner '${DISABLE}'`)).not.toContain('.1');
  });

  it('refuses a second domain with the same PF, and the first goes on', async () => {
    await check(
      "sed 's/<name>sriov</<name>second</' /tmp/sriov.xml > /tmp/second.xml && virsh define /tmp/second.xml",
    );
    const { status, output } = await run('virsh start second');
    expect(status).toBe(1);
    expect(output).toContain('PF loop: domain sriov has it; shut that one down first');
    expect(await check(`systemctl is-active ${SERVICE} ${GLUE}`)).toBe('active\nactive');
  });

  it('starts no domain twice, and it goes on', async () => {
    const { status, output } = await run('virsh start sriov');
    expect(status).toBe(1);
    expect(output.trim()).toMatch(/^error: [^\n]*already active$/);
    expect(await check(`cat ${FOLDER}/domain`)).toBe('sriov');
    expect(await check(`systemctl is-active ${SERVICE} ${GLUE}`)).toBe('active\nactive');
  });

  it('a guest that is reset enables VFs again', async () => {
    await check('virsh reset sriov; inner-ready');
    expect(await check(`inner '${ENABLE}'`)).toContain(':00.2');
  });

  it('a guest that reboots by itself, with VFs on, finds them off and enables them again', async () => {
    const qemu = await check('pidof qemu-system-x86_64');
    expect(await statusText()).toBe('loopback: SR-IOV enabled, 2 of 2 VFs');
    await check('echo reboot -f > "$(cat /run/inner.terminal)"; inner-ready');
    expect(await statusText()).toBe('loopback: SR-IOV disabled, 0 of 2 VFs');
    expect(await check(`inner '${ENABLE}'`)).toContain(':00.2');
    expect(await check('pidof qemu-system-x86_64')).toBe(qemu);
    expect(await check(`systemctl is-active ${SERVICE} ${GLUE}`)).toBe('active\nactive');
  });

  it('a backend that dies leaves a domain that can be ended', async () => {
    await check(`systemctl kill -s KILL ${SERVICE}; sleep 2; virsh destroy sriov`);
    const { output } = await run(`systemctl is-active ${SERVICE} ${GLUE}`);
    expect(output.trim()).toBe('inactive\ninactive');
  });

  it('the next start works, and a domain that is destroyed with VFs up takes backend and glue with it', async () => {
    await check('virsh start sriov && console');
    await isAttached(2);
    expect(await check(`inner '${ENABLE}'`)).toContain(':00.2');
    await check('virsh "destroy sriov; undefine sriov; undefine second"');
    const { output } = await run(`systemctl is-active ${SERVICE} ${GLUE}`);
    expect(output.trim()).toBe('inactive\ninactive');
    const left = await check(`ls ${FOLDER} ${FOLDER}/vfs ${FOLDER}/qmp`);
    expect(left).not.toMatch(/domain|vf0|qmp\.sock/);
  });
});

describe('a card of the host', () => {
  const driver = () => check(`basename $(readlink /sys/bus/pci/devices/${PF}/driver)`);

  it('is not prepared where there is no room for the note of it, and keeps its driver', async () => {
    await check(
      'mkdir -p -m 700 /run/vfio-user-sriov && mount -t tmpfs -o size=4k,mode=700 tmpfs /run/vfio-user-sriov && dd if=/dev/zero of=/run/vfio-user-sriov/full 2>/dev/null || true',
    );
    const { status, output } = await run(
      `vfio-user-sriov prepare --pf=${PF} --user=vfio-user-sriov`,
    );
    const left = await check('ls -A /run/vfio-user-sriov; umount /run/vfio-user-sriov');
    expect(status).toBe(1);
    expect(output.trim()).toMatch(/^vfio-user-sriov: [^\n]*(ENOSPC)[^\n]*$/);
    expect(left).toBe('full');
    expect(await driver()).toBe('igb');
  });

  const unit = `vfio-user-sriov@${PF}.service`;
  const prepareUnit = `vfio-user-sriov-prepare@${PF}.service`;
  /** Until the processes of the unit have locked so many KiB: the card gets its memory while the domain goes on. */
  const locks = (kibibytes: number) =>
    until(
      `$(for p in $(cat /sys/fs/cgroup$(systemctl show -P ControlGroup ${unit})/cgroup.procs); do grep VmLck /proc/$p/status; done | awk '{ sum += $2 } END { print sum + 0 }') -ge ${kibibytes}`,
    );

  it('is prepared by its unit', async () => {
    const told = await check(
      `for unit in ${unit} ${prepareUnit}; do
        mkdir -p /etc/systemd/system/$unit.d && printf '${SLOW_START}' > /etc/systemd/system/$unit.d/test.conf
      done
      systemctl daemon-reload; systemctl enable --now ${prepareUnit}`,
    );
    expect(told).toContain('added as a dependency to a non-existent unit');
    await check(`ls /etc/systemd/system/multi-user.target.wants/${prepareUnit}`);
    expect(await driver()).toBe('vfio-pci');
  });

  it('is served to the domain that is shipped, with its memory, by an ordinary user without any capability', async () => {
    await check(
      `cp /lab/share/disk.qcow2 /var/lib/libvirt/images/sriov.qcow2
      virsh "define /usr/share/doc/vfio-user-sriov/examples/libvirt/domain.xml; start sriov" || { journalctl --no-pager -b -o cat -u ${unit} | tail -20; exit 1; }`,
    );
    expect(await check(`systemctl show -P StatusText ${unit}`)).toContain('0 of 8 VFs');
    const status = await check(`cat /proc/${await mainPid(unit)}/status`);
    expect(status).not.toMatch(/^Uid:\s+0/m);
    expect(status).toMatch(/^CapEff:\s+0+$/m);
    // All of its GiB, but for what is not RAM below its first MiB.
    await locks(2 ** 20 - 2 ** 10);
    await check('virsh "destroy sriov; undefine sriov"');
    expect((await run(`systemctl is-active ${unit}`)).output.trim()).toBe('inactive');
    await check(`systemctl stop vfio-user-sriov@${PF}.socket`);
    expect(await check(`cat /sys/bus/pci/devices/${PF}/sriov_numvfs`)).toBe('0');
  });

  it('is served through root’s opener and writer, where the user has the PF alone', async () => {
    const root = `/run/vfio-user/${PF}/privileged`;
    await check(
      `printf '[Service]\\nLimitMEMLOCK=96M\\n' > /etc/systemd/system/${unit}.d/limit.conf; systemctl daemon-reload
      mkdir -p /etc/vfio-user-sriov && printf 'PREPARE_OPTIONS=--privileged\nOPTIONS=--privileged=${root}\n' > /etc/vfio-user-sriov/${PF}.conf
      systemctl start vfio-user-sriov-opener@${PF}.socket vfio-user-sriov-writer@${PF}.socket`,
    );
    await start(unit);
    expect(await check(`systemctl show -P StatusText ${unit}`)).toContain('0 of 8 VFs');
    expect(
      await check(`stat -c %U /sys/bus/pci/devices/${PF}/sriov_numvfs ${root}/writer.sock`),
    ).toBe('root\nvfio-user-sriov');
    const capabilities = (role: string) =>
      check(
        `grep CapEff /proc/$(systemctl show -P MainPID vfio-user-sriov-${role}@${PF}.service)/status`,
      );
    // CAP_DAC_OVERRIDE is 1, CAP_SYS_PTRACE 19.
    expect(await capabilities('writer')).toMatch(/\s0{15}2$/);
    expect(await capabilities('opener')).toMatch(/\s0{11}80002$/);
  });

  it('has as much memory mapped as the unit may lock and the host has, and says what the rest is too much for', async () => {
    expect(
      await check(`node /lab/share/map-memory.mjs /run/vfio-user/${PF}/pf.sock 64 4096 64`),
    ).toMatch(/^64 MiB: mapped\n4096 MiB: .*ENOMEM.*\n64 MiB: .*ENOMEM.*$/);
    const log = await check(`journalctl --no-pager -b -o cat -u ${unit}`);
    expect(log).toMatch(/4160 MiB would be pinned for this VM: at most \d+ MiB may be/);
    expect(log).toContain('this process may lock 96 MiB of memory (RLIMIT_MEMLOCK)');
    expect(log).toContain('LimitMEMLOCK=infinity');
    await check(
      `systemctl stop ${unit} vfio-user-sriov@${PF}.socket 'vfio-user-sriov-opener@*.*' 'vfio-user-sriov-writer@*.*'`,
    );
    expect(await check(`cat /sys/bus/pci/devices/${PF}/sriov_numvfs`)).toBe('0');
  });

  it('is prepared again after a reboot of the host, before anybody asks for it and before the network', async () => {
    // Nothing of libvirt is looked at after this.
    await check(
      `systemctl enable vfio-user-sriov@${PF}.socket; rm /etc/vfio-user-sriov/${PF}.conf
      systemctl mask apparmor.service libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket virtlogd.socket virtlogd-admin.socket`,
    );
    const boot = host.bootCount + 1;
    host.run('systemctl reboot').catch(() => {});
    await host.waitForBoot({ boot, timeoutMs: 300_000 });
    await becomes(prepareUnit, 'active');
    expect(await driver()).toBe('vfio-pci');
    const times = await check(
      `systemctl show -P ActiveEnterTimestampMonotonic ${prepareUnit} network-pre.target`,
    );
    const [prepared, network] = times.split(/\s+/).map(Number);
    expect(prepared).toBeGreaterThan(0);
    expect(network).toBeGreaterThanOrEqual(prepared!);
    expect(await check(`systemctl is-active vfio-user-sriov@${PF}.socket`)).toBe('active');
    expect((await run(`systemctl is-active ${unit}`)).output.trim()).toBe('inactive');
    await check(`systemctl disable --now vfio-user-sriov@${PF}.socket`);
  });

  it('is prepared when it appears', async () => {
    await check(`systemctl stop ${prepareUnit}`);
    expect(await driver()).toBe('igb');
    await check(`echo 1 > /sys/bus/pci/devices/${PF}/remove; echo 1 > /sys/bus/pci/rescan`);
    await becomes(prepareUnit, 'active');
    expect(await driver()).toBe('vfio-pci');
  });

  it('that another driver has taken since it was prepared is refused in one line, and nothing is left', async () => {
    await check(
      `cd /sys/bus/pci/devices/${PF}; echo > driver_override; echo ${PF} > driver/unbind; echo ${PF} > /sys/bus/pci/drivers/igb/bind`,
    );
    const { status, output } = await run(
      `vfio-user-sriov serve --pf=${PF} --socket-path=/tmp/pf.sock`,
    );
    expect(status).toBe(1);
    expect(output.trim()).toMatch(/^vfio-user-sriov: [^\n]*the driver igb, not vfio-pci[^\n]*$/);
    await check('! test -e /tmp/pf.sock');
  });

  it('is given back when the package goes, which leaves nothing but its user and what others have', async () => {
    await check(
      `systemctl restart ${prepareUnit}
      rm -rf /etc/systemd/system/vfio-user-sriov*.d /etc/libvirt/hooks/qemu.d
      mkdir -p /run/vfio-user/other && touch /run/vfio-user/other/pf.sock`,
    );
    expect(await driver()).toBe('vfio-pci');
    await check('dpkg --purge vfio-user-sriov');
    expect(await driver()).toBe('igb');
    expect(await check('systemctl list-units --all --no-legend "vfio-user-sriov*"')).toBe('');
    expect(
      await check(
        `find ${CHANGED} /run -xdev -name "*vfio-user*" | grep -v -e /var/log/journal -e /var/cache`,
      ),
    ).toBe('/run/vfio-user');
    expect(await check('ls /run/vfio-user')).toBe('other');
  });
});
