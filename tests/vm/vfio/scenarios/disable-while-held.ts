// Scenario: the sequence that ends the naive process. The backend holds a VF, with a mapping of its BAR, and VFs are to go.
import { strict as assert } from 'node:assert';
import { mmap, munmap } from '../../../../protocol/unix/libc.ts';
import { switchOn } from './igb.ts';
import { functionOf, openPf, readPf, step } from './scenario.ts';

const device = await step('the PF is opened', () => openPf());
const [vf] = await step('a VF is made', () => device.createVfs(1));
assert.ok(vf !== undefined);
switchOn(functionOf(device, vf));
const address = mmap(0n, 0x1000, 1, 1, vf.deviceFd, 0);
await step('removing it is refused as long as this process maps it', async () => {
  const held = await device.releaseVfs();
  assert.equal(held[0]?.holder, 'this process');
  await assert.rejects(device.destroyVfs(), { errno: 16 });
});
munmap(address, 0x1000);
await step('it is removed when the mapping has gone', async () => {
  assert.deepEqual(await device.releaseVfs(), []);
  await device.destroyVfs();
});
await device.close();
await step('the host is as before', () => assert.equal(readPf('sriov_numvfs'), '0'));
