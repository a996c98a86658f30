// Scenario: the backend starts with the profile `argv[2]`, so that no VF is enabled to look at it; VFs work all the same.
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { openPf, step } from './scenario.ts';

/** How many VFs the host has had, by the kernel's log. */
function vfsSoFar(): number {
  return execFileSync('dmesg', { encoding: 'utf8' }).split('Captured SR-IOV VF').length - 1;
}

const before = vfsSoFar();
const device = await step('the PF is opened', () => openPf({ profile: process.argv[2]! }));
await step('no VF was made to look at it', () => {
  assert.equal(vfsSoFar(), before);
});
await step('a VF looks as the profile says', async () => {
  const [vf] = await device.createVfs(1);
  assert.ok(vf !== undefined);
  assert.deepEqual(vf.shape.regions, device.description.vf.regions);
  assert.deepEqual(vf.shape.irqs, device.description.vf.irqs);
});
await device.close();
