// Measures: how soon other sessions are answered while one session has `argv[2]` MiB of guest memory mapped for DMA. The
// kernel takes long for that, and must not be waited for by the thread that answers.
import { strict as assert } from 'node:assert';
import { RegionIndex } from '../../../../protocol/vfio-user/commands.ts';
import { VfioUserClient } from '../../../../vmm-glue/client/client.ts';
import { GuestMemory } from '../../../../vmm-glue/client/memory.ts';
import { median } from '../../../bench/figure.ts';
import { BackendProcess } from './backend-process.ts';
import { step } from './scenario.ts';

const MEBIBYTES = Number(process.argv[2] ?? 256);
const SOCKET = '/tmp/map-while-serving.sock';
const ROUNDS = 5;
const PAUSE_MILLISECONDS = 1;

/** Milliseconds of each config read of another session, for as long as `work` takes. */
async function answersDuring(other: VfioUserClient, work: Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  let isDone = false;
  const end = work.finally(() => {
    isDone = true;
  });
  while (!isDone) {
    const start = performance.now();
    await other.readRegion(RegionIndex.config, 0, 4);
    times.push(performance.now() - start);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MILLISECONDS));
  }
  await end;
  return times;
}

const backend = await step('the backend starts', () =>
  BackendProcess.start(SOCKET, ['--vf-sockets=/tmp/map-while-serving.vfs']),
);
const pf = await VfioUserClient.connect(SOCKET);
const slot = await VfioUserClient.connect('/tmp/map-while-serving.vfs/vf0.sock');
const memory = new GuestMemory(MEBIBYTES << 20);
const window = { address: 0x1_0000_0000n, size: BigInt(memory.length), fd: memory.fd };

const quiet: number[] = [];
const busy: number[] = [];
const longest: number[] = [];
/** Of each round, its longest answer as a part of the map's time. */
const shares: number[] = [];
let longestMap = 0;
for (let round = 0; round < ROUNDS; round++) {
  const start = performance.now();
  const times = await answersDuring(slot, pf.mapDma(window));
  const mapMilliseconds = performance.now() - start;
  longestMap = Math.max(longestMap, mapMilliseconds);
  busy.push(...times);
  longest.push(Math.max(...times));
  shares.push(Math.max(...times) / mapMilliseconds);
  await pf.unmapDma(window.address, window.size);
  // As long as the map took, with nothing going on: what the machine itself does to an answer.
  const idle = new Promise((resolve) => setTimeout(resolve, performance.now() - start));
  quiet.push(...(await answersDuring(slot, idle)));
}
const show = (values: number[]) =>
  `median ${median(values).toFixed(2)} ms, longest ${Math.max(...values).toFixed(1)} ms`;
console.log(`${MEBIBYTES} MiB mapped in ${longestMap.toFixed(0)} ms at most`);
console.log(`answers meanwhile (${busy.length}): ${show(busy)}`);
console.log(`answers with nothing going on (${quiet.length}): ${show(quiet)}`);
console.log(`longest of each round: ${longest.map((time) => time.toFixed(1)).join(', ')} ms`);
await step('nobody waited for the kernel', () => {
  // One that waits takes as long as the map. What else there is, is the machine's.
  const usualShare = median(shares);
  assert.ok(usualShare < 1 / 4, `the longest answer usually takes ${usualShare} of the map's time`);
});
slot.close();
pf.close();
memory.close();
assert.equal(await backend.end(), 0);
