// Scenario: the PF's config space stays quick while the host makes and removes VFs. Prints the times of all reads.
import { strict as assert } from 'node:assert';
import { median } from '../../../bench/figure.ts';
import { functionOf, openPf, step } from './scenario.ts';

/** Command, PM, PCIe, AER: what the kernel blocks. */
const OFFSETS = [0x04, 0x44, 0xa8, 0x104, 0x168] as const;

const device = await step('the PF is opened', () => openPf());
const pf = functionOf(device, device.pf);
/** As long as three enables and disables take. */
const IDLE_MILLISECONDS = 4_000;
const times: number[] = [];
/** The longest read of each enable and each disable. */
const longestReads: number[] = [];

async function timesDuring(work: Promise<unknown>): Promise<number[]> {
  const own: number[] = [];
  let isDone = false;
  const end = work.finally(() => {
    isDone = true;
  });
  while (!isDone) {
    for (const offset of OFFSETS) {
      const start = performance.now();
      pf.readConfig(offset, 4);
      own.push(performance.now() - start);
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await end;
  return own;
}

async function readMeanwhile(work: Promise<unknown>): Promise<void> {
  const own = await timesDuring(work);
  times.push(...own);
  longestReads.push(Math.max(...own));
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
const idle = await step('config space is read with nothing going on', () =>
  timesDuring(new Promise((resolve) => setTimeout(resolve, IDLE_MILLISECONDS))),
);
const usual = median(times);
const longest = Math.max(...times);
const usualLongest = median(longestReads);
console.log(
  `${times.length} reads: median ${usual.toFixed(3)} ms; longest of an enable or disable: ${longestReads
    .map((time) => time.toFixed(1))
    .join(', ')} ms; ` +
    `of ${idle.length} reads with nothing going on: ${Math.max(...idle).toFixed(1)} ms`,
);
await step('no read waited for the host', () => {
  // A read that the kernel blocks takes 100 ms at least, and 1 s while VFs are removed. What is below that is the machine's:
  // this VM's only CPU is a thread that other programs interrupt.
  assert.ok(usual < 1, `median ${usual} ms`);
  assert.ok(usualLongest < 50, `longest read, usually ${usualLongest} ms`);
  assert.ok(longest < 500, `longest read ${longest} ms`);
});
await device.close();
