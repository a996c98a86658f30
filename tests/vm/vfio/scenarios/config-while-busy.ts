// Scenario: the PF's config space stays quick while the host makes and removes VFs. Prints the times of all reads.
import { strict as assert } from 'node:assert';
import { functionOf, openPf, step } from './scenario.ts';

/** Command, PM, PCIe, AER: what the kernel blocks. */
const OFFSETS = [0x04, 0x44, 0xa8, 0x104, 0x168] as const;

const device = await step('the PF is opened', () => openPf());
const pf = functionOf(device, device.pf);
const times: number[] = [];

async function readMeanwhile(work: Promise<unknown>): Promise<void> {
  let isDone = false;
  const end = work.finally(() => {
    isDone = true;
  });
  while (!isDone) {
    for (const offset of OFFSETS) {
      const start = performance.now();
      pf.readConfig(offset, 4);
      times.push(performance.now() - start);
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await end;
}

for (let round = 0; round < 3; round++) {
  pf.hostBusy(true);
  pf.writeConfig(0x04, 2, 0x0406);
  await step('VFs are made while config space is read', () => readMeanwhile(device.createVfs(2)));
  pf.hostBusy(false);
  assert.equal(pf.readConfig(0x04, 2) & 0x0406, 0x0406, 'a write that came meanwhile was played');
  await device.releaseVfs();
  pf.hostBusy(true);
  await step('VFs are removed while config space is read', () =>
    readMeanwhile(device.destroyVfs()),
  );
  pf.hostBusy(false);
}
times.sort((a, b) => a - b);
const median = times[times.length >> 1]!;
const longest = times.at(-1)!;
console.log(
  `${times.length} reads: median ${median.toFixed(3)} ms, longest ${longest.toFixed(3)} ms`,
);
await step('no read waited for the host', () => {
  assert.ok(median < 1);
  // A read that the kernel blocks takes 100 ms at least; less is this machine's own noise.
  assert.ok(longest < 50);
});
await device.close();
