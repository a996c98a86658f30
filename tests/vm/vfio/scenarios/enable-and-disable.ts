// Scenario: VFs are made, used, let go of and removed, `argv[2]` times; host and process are as before afterwards.
import { strict as assert } from 'node:assert';
import { readdirSync } from 'node:fs';
import { isAlive, readStatus, switchOn } from './igb.ts';
import { functionOf, openPf, readPf, step } from './scenario.ts';

const rounds = Number(process.argv[2] ?? 2);
const device = await step('the PF is opened', () => openPf());
const openFiles = () => readdirSync('/proc/self/fd').length;

const times: { enable: number; disable: number }[] = [];
let filesBefore = 0;
for (let round = 0; round < rounds; round++) {
  if (round === 1) {
    filesBefore = openFiles();
  }
  const count = 1 + (round % 7);
  const start = performance.now();
  const handles = await step(`round ${round}: ${count} VFs are made`, () =>
    device.createVfs(count),
  );
  const enable = performance.now() - start;
  assert.equal(handles.length, count);
  handles.forEach((handle, index) => {
    const vf = functionOf(device, handle);
    assert.equal(vf.readConfig(0, 4), 0x10ca_8086);
    switchOn(vf);
    assert.ok(isAlive(readStatus(vf)), `VF ${index} answers`);
  });
  const middle = performance.now();
  assert.deepEqual(await device.releaseVfs(), []);
  await device.destroyVfs();
  times.push({ enable, disable: performance.now() - middle });
}
await step('no file stays open from round to round', () => {
  assert.equal(openFiles(), filesBefore || openFiles());
});
const median = (key: 'enable' | 'disable') =>
  Math.round(times.map((time) => time[key]).sort((a, b) => a - b)[times.length >> 1]!);
console.log(`median: enable ${median('enable')} ms, disable ${median('disable')} ms`);
await device.close();
await step('no VF is left', () => assert.equal(readPf('sriov_numvfs'), '0'));
