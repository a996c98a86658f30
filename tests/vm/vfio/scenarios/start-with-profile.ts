// Scenario: the backend starts with the profile `argv[2]`, so that no VF is enabled to look at it; VFs work all the same.
import { strict as assert } from 'node:assert';
import { openPf, step } from './scenario.ts';

const start = performance.now();
const device = await step('the PF is opened', () => openPf({ profile: process.argv[2]! }));
await step('it took no second for a look at a VF', () => {
  // Disabling VFs alone takes 1 s in the kernel.
  assert.ok(performance.now() - start < 1_000);
});
await step('a VF looks as the profile says', async () => {
  const [vf] = await device.createVfs(1);
  assert.ok(vf?.kind === 'vfio');
  assert.deepEqual(vf.shape.regions, device.description.vf.regions);
  assert.deepEqual(vf.shape.irqs, device.description.vf.irqs);
});
await device.close();
