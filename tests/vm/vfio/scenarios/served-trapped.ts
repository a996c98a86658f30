// Scenario: `serve --pf --trap=pf,vfs --trace`: nothing of a real card can be mapped, and its recording has each access to
// the registers of PF and VFs.
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { ReferenceVmm } from '../../../../vmm-glue/reference-vmm/reference-vmm.ts';
import { BackendProcess, CLI } from './backend-process.ts';
import { step } from './scenario.ts';

const SOCKET = '/tmp/served.sock';
const TRACE = '/tmp/trapped.trace';
/** NVM Express: Version. */
const VERSION = 8;
const backend = await step('the backend starts', () =>
  BackendProcess.start(SOCKET, ['--trap=pf,vfs', `--trace=${TRACE}`, '--trace-size=8M']),
);
const vmm = await step('a VM boots on it', () => ReferenceVmm.start({ pf: SOCKET }));
const [vf] = await step('the guest enables a VF', () => vmm.enableVfs(1));
await step('nothing is mapped, and registers are reached by messages', async () => {
  assert.deepEqual([vmm.pf.areas.length, vf!.areas.length], [0, 0]);
  assert.notEqual(await vmm.pf.readRegister(0, VERSION), 0xffff_ffff);
  // Offline, as this card's VFs come up, it answers what it likes.
  await vf!.readRegister(0, VERSION);
});
await step('VM and backend end', async () => {
  await vmm.close();
  assert.equal(await backend.end(), 0);
});
await step('the recording has both reads, and names nothing as unseen', () => {
  const trace = (...args: string[]): string =>
    execFileSync(process.execPath, [CLI, 'trace', TRACE, ...args], { encoding: 'utf8' });
  const reads = trace('--only=reads');
  assert.match(reads, /pf +R BAR 0 \+0x8/);
  assert.match(reads, /vf0 +R BAR 0 \+0x8/);
  assert.doesNotMatch(trace('--explain'), /because it was mapped/);
});
