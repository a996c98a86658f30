// Scenario: `serve --pf` without root, after `prepare --user`. It serves PF and VFs like root's; what a process may lock
// is the one thing that root must grant besides (`argv[2]`: `granted` or `refused`). What follows are options of `serve`.
import { strict as assert } from 'node:assert';
import { ReferenceVmm } from '../../../../vmm-glue/reference-vmm/reference-vmm.ts';
import { BackendProcess } from './backend-process.ts';
import { isAlive } from './igb.ts';
import { statusByMessage } from './igb-guest.ts';
import { readPf, step } from './scenario.ts';

const SOCKET = '/tmp/served-to-user.sock';
assert.notEqual(process.getuid?.(), 0);
const backend = await step('the backend starts without root', () =>
  BackendProcess.start(SOCKET, process.argv.slice(3)),
);
if (process.argv[2] === 'refused') {
  await step('more memory than the user may lock is refused with the fix', async () => {
    await assert.rejects(ReferenceVmm.start({ pf: SOCKET }), /ENOMEM/);
    await backend.logs(/RLIMIT_MEMLOCK/);
  });
} else {
  const vmm = await step('a VM boots on it', () => ReferenceVmm.start({ pf: SOCKET }));
  for (const round of [1, 2]) {
    await step(`VFs are enabled, round ${round}`, async () => {
      const vfs = await vmm.enableVfs(2);
      for (const vf of vfs) {
        assert.ok(isAlive(await statusByMessage(vf)));
      }
    });
    await step('VFs are disabled', async () => {
      await vmm.disableVfs();
      await backend.reaches('disabled');
    });
  }
  await vmm.close();
}
assert.equal(await backend.end(), 0);
await step('the host is as before', () => assert.equal(readPf('sriov_numvfs'), '0'));
process.exit(0);
