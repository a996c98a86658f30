// `serve --pf` with the reference VMM, on a real kernel: what the guest sees, and every way in which they part.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { VfioHost } from './vfio-host.ts';

/** Seconds on a quiet machine are a minute on a busy one: the VM is emulated. */
const LIMIT = 200_000;

let host: VfioHost;

beforeAll(async () => {
  host = await VfioHost.start();
  // Scenarios that do not need to look at a VF start with what was seen once.
  await host.vm.check('node /project/dist/cli.js probe --pf=0000:01:00.0 --output=/tmp/igb.json');
});

afterAll(async () => {
  await host?.end();
});

it('a guest owns PF and VFs of a real card', async () => {
  const output = await host.scenario('served-igb', '', LIMIT);
  console.log(output);
  expect(output).toContain('ok VM and backend end');
});

const CLI = 'node /project/dist/cli.js';

/** Node takes its time to start on an emulated processor. */
const SEVERAL_PROGRAMS = { timeoutMs: 120_000 };

it('the recording of it names the one rule that the scenario breaks, and what was mapped', async () => {
  const explained = await host.vm.check(
    `${CLI} trace /tmp/served.trace --explain`,
    SEVERAL_PROGRAMS,
  );
  // It enables 2 VFs when the restored capability has enabled 3.
  expect(explained.match(/^ *\d+\.\d+ .*/gm)).toEqual([
    expect.stringContaining('NumVFs was written as 2 with VF Enable set: ignored'),
  ]);
  expect(explained).toMatch(/not seen, because it was mapped: pf region 0/);
});

it('the recording plays without the card, against a loopback that wears its profile', async () => {
  await host.vm.check(
    `(${CLI} serve --loopback --profile=/tmp/igb.json --socket-path=/tmp/worn.sock > /tmp/worn.out 2>&1 & echo $! > /tmp/worn.pid); ` +
      'for i in $(seq 600); do grep -q ^ready /tmp/worn.out && exit 0; sleep 0.1; done; cat /tmp/worn.out; exit 1',
    SEVERAL_PROGRAMS,
  );
  const { output } = await host.vm.run(
    `${CLI} replay /tmp/served.trace --socket-path=/tmp/worn.sock; kill $(cat /tmp/worn.pid)`,
    SEVERAL_PROGRAMS,
  );
  expect(output).toMatch(/^\d{3,} accesses, answered as recorded/);
});

it.each([
  ['a VMM that leaves with VFs enabled', 'vmm-leaves'],
  ['a VMM that is killed with VFs enabled', 'vmm-killed'],
  ['a VMM that says it let go of VFs and did not', 'vmm-keeps-vfs'],
  ['a backend that is told to end with VFs enabled', 'backend-terminated'],
  ['a backend that is killed under a living VMM', 'backend-killed'],
  ['a backend that is killed under a VMM without VFs', 'backend-killed-idle'],
  ['a PF that is unbound under backend and VMM', 'pf-unbound'],
  ['an enable that the kernel refuses', 'enable-fails'],
  ['one VF of four that cannot be opened', 'vf-fails'],
  ['a VF that is told of memory which the PF does not have', 'map-differs'],
])('%s leaves the host as it was', async (_case, name) => {
  const output = await host.scenario('served-endings', name, LIMIT);
  expect(output).toContain('ok the host is as before');
});

it('PCIe errors reach the VMM that asked for them', async () => {
  await host.startScenario('served-errors');
  await host.waitForOutput('served-errors', 'READY');
  await host.raisePcieError();
  await host.waitForOutput('served-errors', 'AGAIN');
  await host.raisePcieError();
  await host.waitForOutput('served-errors', 'ok VM and backend end');
});

it('the kernel complained about nothing', async () => {
  await host.expectCleanKernelLog();
});
