// Hosts whose PF cannot be served as it is: each command says why in one line, with what to do, and changes nothing.
import { afterEach, expect, it } from 'vitest';
import { PF_FOLDER, VfioHost } from './vfio-host.ts';

const CLI = 'node /project/dist/cli.js';
const SERVE = `${CLI} serve --pf=0000:01:00.0 --socket-path=/tmp/pf.sock`;
const ONE_LINE = /^vfio-user-sriov: [^\n;]+; [^\n;]+$/;

let host: VfioHost;

afterEach(async () => {
  await host.end();
});

it('without an IOMMU the PF has no group: serve and prepare refuse it, doctor says what to turn on', async () => {
  host = await VfioHost.start({ bind: false, append: ['intel_iommu=off'] });
  for (const command of [SERVE, `${CLI} prepare --pf=0000:01:00.0`]) {
    const { status, output } = await host.vm.run(command);
    expect(status).toBe(1);
    expect(output.trim()).toMatch(ONE_LINE);
    expect(output).toContain(
      'it has no IOMMU group: the IOMMU is off, or does not cover it; boot with intel_iommu=on',
    );
  }
  const { status, output } = await host.vm.run(`${CLI} doctor --pf=0000:01:00.0`);
  expect(status).toBe(1);
  expect(output).toContain('PROBLEM IOMMU: off');
  await host.vm.check(`! test -e ${PF_FOLDER}/driver`);
});

it('a PF that shares its group with another function is refused, and the other one named', async () => {
  // Behind ports without ACS (Intel's 5500 has none), devices can reach each other without the IOMMU: the kernel keeps them together.
  const port = 'ioh3420';
  host = await VfioHost.start({
    devices: [
      ...['-netdev', 'user,id=igbnet,restrict=on'],
      ...['-device', `${port},id=rp1,chassis=1,slot=1,addr=4.0,multifunction=on`],
      ...['-device', `${port},id=rp2,chassis=1,slot=2,addr=4.1`],
      ...['-device', 'igb,bus=rp1,netdev=igbnet'],
      ...['-device', 'virtio-rng-pci,bus=rp2'],
    ],
  });
  const { status, output } = await host.vm.run(SERVE);
  expect(status).toBe(1);
  expect(output.trim()).toMatch(ONE_LINE);
  expect(output).toMatch(/it shares its IOMMU group \d+ with 0000:02:00\.0 \([a-z -]+\); .*ACS/);
  const doctor = await host.vm.run(`${CLI} doctor --pf=0000:01:00.0`);
  expect(doctor.status).toBe(1);
  expect(doctor.output).toContain('0000:02:00.0');
});
