// prepare, release, doctor and probe on a real host: from a card that its own driver has, and back to that.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { differences } from '../../json-tables.ts';
import { PF_FOLDER, SCENARIOS, VfioHost } from './vfio-host.ts';

const CLI = 'node /project/dist/cli.js';

let host: VfioHost;

beforeAll(async () => {
  host = await VfioHost.start({
    bind: false,
    modules: ['igb', 'vfio-pci', 'vfio_iommu_type1'],
    files: [
      { path: '/etc/passwd', content: 'root:x:0:0::/:/bin/sh\ntester:x:1000:1000::/:/bin/sh\n' },
    ],
  });
});

afterAll(async () => {
  await host?.end();
});

async function driver(): Promise<string> {
  return await host.vm.check(`basename $(readlink ${PF_FOLDER}/driver)`);
}

it('doctor says what is missing on a host that is not prepared', async () => {
  const { status, output } = await host.vm.run(`${CLI} doctor`);
  expect(status).toBe(1);
  expect(output).toContain('ok      IOMMU: on');
  expect(output).toContain(
    'PROBLEM enable_sriov of vfio-pci: vfio-pci is loaded with enable_sriov off',
  );
  expect(output).toContain('PROBLEM 0000:01:00.0 driver: it has the driver igb, not vfio-pci');
  expect(output).toContain('fix: run `vfio-user-sriov prepare --pf=0000:01:00.0` as root');
});

it('probe refuses a PF that its driver has, in one line with the fix', async () => {
  const { status, output } = await host.vm.run(`${CLI} probe --pf=01:00.0`);
  expect(status).toBe(1);
  expect(output.trim()).toMatch(
    /^vfio-user-sriov: .*it has the driver igb, not vfio-pci; run .*prepare --pf=0000:01:00.0/,
  );
});

it('prepare refuses a card whose driver has VFs enabled', async () => {
  await host.vm.check(`echo 1 > ${PF_FOLDER}/sriov_numvfs`);
  const { status, output } = await host.vm.run(`${CLI} prepare --pf=0000:01:00.0`);
  expect(status).toBe(1);
  expect(output).toContain('it has 1 VFs enabled; disable them first');
  await host.vm.check(`echo 0 > ${PF_FOLDER}/sriov_numvfs`);
  expect(await driver()).toBe('igb');
});

it('prepare takes the card from its driver, and doctor is content', async () => {
  await host.vm.check(`${CLI} prepare --pf=0000:01:00.0`);
  expect(await driver()).toBe('vfio-pci');
  expect(await host.vm.check(`${CLI} doctor --pf=0000:01:00.0`)).not.toContain('PROBLEM');
});

it('prepare again changes nothing', async () => {
  const output = await host.vm.check(`${CLI} prepare --pf=0000:01:00.0`);
  expect(output).toMatch(/^0000:01:00.0 is ready/);
});

it('probe shows the card and writes a profile that the next start uses', async () => {
  const output = await host.vm.check(`${CLI} probe --pf=0000:01:00.0 --output=/tmp/igb.json`);
  expect(output).toContain('0000:01:00.0: 8 VFs, device ID 0x10ca');
  expect(output).toContain('VF: BAR 0 16384 bytes memory64, BAR 3 16384 bytes memory64; 3 MSI-X');
  await host.scenario('start-with-profile', '/tmp/igb.json');
});

it('report has all of it in one file, with the card as `probe --json` describes it', async () => {
  await host.vm.check(`${CLI} report --pf=0000:01:00.0 --output=/tmp/report.txt`);
  const text = await host.vm.check('cat /tmp/report.txt');
  const probe = JSON.parse(text.split('== probe\n')[1]!.split('\n== ')[0]!) as object;
  expect(differences('probe', probe)).toEqual([]);
  expect(probe).toMatchObject({ totalVfs: 8, vf: { deviceId: '10ca' } });
  expect(text).toMatch(/^\[.*vfio/m);
});

it('release refuses while a backend runs, and names it', async () => {
  const pid = await host.startScenario('serve-until-killed', '0');
  await host.waitForOutput('serve-until-killed', 'READY');
  const { status, output } = await host.vm.run(`${CLI} release --pf=0000:01:00.0`);
  expect(status).toBe(1);
  expect(output).toContain(`another backend serves this PF (pid ${pid}); end it first`);
  await host.vm.check(`kill -9 ${pid}`);
  await host.vm.check(`while kill -0 ${pid}; do sleep 0.1; done 2>/dev/null; true`);
});

it('release gives the card back to its driver and enable_sriov to what it was', async () => {
  await host.vm.check(`${CLI} release --pf=0000:01:00.0`);
  expect(await driver()).toBe('igb');
  expect(await host.vm.check('cat /sys/module/vfio_pci/parameters/enable_sriov')).toBe('N');
  expect(await host.vm.check(`cat ${PF_FOLDER}/driver_override`)).toBe('(null)');
  expect(await host.vm.check('ls /run/vfio-user-sriov')).not.toContain('.json');
});

it('release of a PF that was not prepared is refused', async () => {
  const { status, output } = await host.vm.run(`${CLI} release --pf=0000:01:00.0`);
  expect(status).toBe(1);
  expect(output).toContain('was not prepared by this program');
});

it('prepare --user lets another user serve the PF and its VFs', async () => {
  // Without its driver the card has none before, and gets none back.
  await host.vm.check('rmmod igb');
  await host.vm.check(`${CLI} prepare --pf=0000:01:00.0 --user=tester`);
  const rule = await host.vm.check('cat /run/udev/rules.d/70-vfio-user-sriov-0000:01:00.0.rules');
  expect(rule).toContain('OWNER="tester"');
  // There is no udev in this VM: what its rule does is done by hand.
  const udev = 'while sleep 0.05; do chown 1000 /dev/vfio/[0-9]*; done';
  const pid = await host.vm.check(`sh -c '${udev} >/dev/null 2>&1 & echo $!'`);
  const probe = `su -s /bin/sh tester -c 'PATH=/bin ${CLI} probe --pf=0000:01:00.0'`;
  const output = await host.vm.check(probe);
  expect(output).toContain('8 VFs');
  const serve = (what: string, kibibytes: number) =>
    host.vm.check(
      `ulimit -l ${kibibytes}; su -s /bin/sh tester -c 'PATH=/bin UV_THREADPOOL_SIZE=16 node ${SCENARIOS}/served-to-user.js ${what}'`,
      { timeoutMs: 200_000 },
    );
  expect(await serve('refused', 8_192)).toContain('ok the host is as before');
  expect(await serve('granted', 65_536)).toContain('ok the host is as before');
  // What a killed backend of the user leaves is noted where root does not look.
  const left = `su -s /bin/sh tester -c 'PATH=/bin exec node ${SCENARIOS}/serve-until-killed.js 2'`;
  const user = await host.vm.check(`${left} > /tmp/serve-until-killed.out 2>&1 & echo $!`);
  await host.waitForOutput('serve-until-killed', 'READY');
  await host.vm.check(
    `kill -9 ${user}; while kill -0 ${user}; do sleep 0.1; done 2>/dev/null; true`,
  );
  expect(await host.numVfs()).toBe('2');
  await host.vm.check(`kill ${pid}`);
  const released = await host.vm.check(`${CLI} release --pf=0000:01:00.0`);
  expect(released).toContain('removed the VFs that a backend had left');
  expect(await host.numVfs()).toBe('0');
  await host.vm.check(`! test -e ${PF_FOLDER}/driver`);
  expect(await host.vm.check(`stat -c %u ${PF_FOLDER}/sriov_numvfs`)).toBe('0');
});

it('root’s opener and writer do for a user what root alone may, and believe no backend', async () => {
  await host.vm.check(`${CLI} prepare --pf=0000:01:00.0 --user=tester --privileged`);
  expect(await host.vm.check(`stat -c %u ${PF_FOLDER}/sriov_numvfs`)).toBe('0');
  await host.vm.check('mkdir -p /run/vfs');
  const start = (role: string) =>
    host.vm.check(
      `sh -c '${CLI} privileged ${role} --pf=0000:01:00.0 --user=tester --socket-path=/run/vfs/${role}.sock > /tmp/${role}.out 2>&1 & echo $!'`,
    );
  const pids = [await start('opener'), await start('writer')];
  await host.vm.check(
    'for i in $(seq 600); do grep -q answers /tmp/opener.out && grep -q answers /tmp/writer.out && exit 0; sleep 0.1; done; cat /tmp/opener.out /tmp/writer.out; exit 1',
    { timeoutMs: 70_000 },
  );
  const asTester = (command: string) =>
    host.vm.check(
      `ulimit -l 65536; su -s /bin/sh tester -c 'PATH=/bin UV_THREADPOOL_SIZE=16 node ${SCENARIOS}/${command}'`,
      { timeoutMs: 200_000 },
    );
  const unread = await asTester('unread-vf.js /run/vfs');
  expect(unread).toContain('ok the message goes with its socket, and the VF with the 0');
  // No udev gives VFs to the user here.
  expect(await asTester('served-to-user.js granted --privileged=/run/vfs')).toContain(
    'ok the host is as before',
  );
  await host.vm.check(`kill ${pids.join(' ')}`);
  await host.vm.check(`${CLI} release --pf=0000:01:00.0`);
  await host.vm.check('! ls /run/vfs/*.sock');
});

it('wrong usage is told as such', async () => {
  const { status, output } = await host.vm.run(`${CLI} prepare --pf=card`);
  expect(status).toBe(2);
  expect(output).toContain("PCI address 'card' is not domain:bus:device.function");
});

it('the kernel complained about nothing', async () => {
  await host.expectCleanKernelLog();
});
