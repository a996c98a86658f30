// Scenario: somebody else holds a VF, by a file (`fd`) or only by a mapping (`map`). It is named, sriov_numvfs is not
// written, and when the holder has gone the VFs go too.
import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { switchOn } from './igb.ts';
import { functionOf, openPf, readPf, step } from './scenario.ts';

const kind = process.argv[2] ?? 'fd';
const device = await step('the PF is opened', () => openPf());
const handles = await step('2 VFs are made', () => device.createVfs(2));
const vf = handles[0]!;
switchOn(functionOf(device, vf));

const program = fileURLToPath(new URL('./hold-file.js', import.meta.url));
const holder = spawn(process.execPath, [program, kind], {
  stdio: ['ignore', 'pipe', 'inherit', vf.deviceFd],
});
await step('another process holds VF 0', () => once(holder.stdout!, 'data'));

await step('release says who holds it', async () => {
  const held = await device.releaseVfs();
  assert.deepEqual(
    held.map(({ vfIndex }) => vfIndex),
    [0],
  );
  assert.match(held[0]!.holder, new RegExp(`pid ${holder.pid} \\(`));
});
await step('destroy refuses and does not write sriov_numvfs', async () => {
  await assert.rejects(device.destroyVfs(), { name: 'HostError', errno: 16 });
  // A write under way would block this read.
  assert.equal(readPf('sriov_numvfs'), '2');
});
await step('the holder goes', async () => {
  holder.kill('SIGKILL');
  await once(holder, 'exit');
});
await step('the VFs go', async () => {
  assert.deepEqual(await device.releaseVfs(), []);
  await device.destroyVfs();
  assert.equal(readPf('sriov_numvfs'), '0');
});
await step('VFs can be made again', () => device.createVfs(2));
await step('everything is given back', () => device.close());
