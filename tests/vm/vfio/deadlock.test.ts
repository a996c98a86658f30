// Open issue 2 of the 2015 RFC, provoked: a process that holds a VF and disables VFs. The naive one waits for itself and
// cannot be killed; ours goes through the same sequence and lives. In a VM that may die.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PF_FOLDER, VfioHost } from './vfio-host.ts';

let host: VfioHost;

beforeAll(async () => {
  host = await VfioHost.start();
});

afterAll(async () => {
  await host?.end();
});

it('the backend that holds a VF disables VFs and lives', async () => {
  expect(await host.scenario('disable-while-held')).toContain('ok the host is as before');
});

it('a naive process in the same place hangs for good, and SIGKILL does not end it', async () => {
  const pid = await host.startScenario('naive');
  await host.waitForOutput('naive', 'READY');
  await host.vm.check('sleep 3');
  expect(await host.vm.check('cat /tmp/naive.out')).not.toContain('SURVIVED');
  await host.vm.check(`kill -9 ${pid}; sleep 2`);
  expect(await host.vm.check(`cat /proc/${pid}/status | grep State`)).toMatch(/State:\s+[DZ]/);
  // Not even the number of VFs can be read any more.
  const read = await host.vm.run(
    `cat ${PF_FOLDER}/sriov_numvfs > /tmp/number & sleep 2; test -s /tmp/number`,
  );
  expect(read.status).not.toBe(0);
});
