// Measures: how soon other sessions are answered while one session has `argv[2]` MiB of guest memory mapped for DMA. The
// kernel takes long for that, and must not be waited for by the thread that answers.
import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
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
/** Milliseconds within which a session is to be answered. */
const SOON = 5;

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

const sleep = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds));
const quiet: number[][] = [];
const besides: number[][] = [];
const busy: number[][] = [];
const maps: number[] = [];
for (let round = 0; round < ROUNDS; round++) {
  const start = performance.now();
  busy.push(await answersDuring(slot, pf.mapDma(window)));
  maps.push(performance.now() - start);
  await pf.unmapDma(window.address, window.size);
  // As long as the map took: what the machine itself does to an answer, idle and with its other CPU busy.
  quiet.push(await answersDuring(slot, sleep(maps.at(-1)!)));
  const stranger = spawn('dd', ['if=/dev/zero', 'of=/dev/null', 'bs=2M'], { stdio: 'ignore' });
  besides.push(await answersDuring(slot, sleep(maps.at(-1)!)));
  stranger.kill();
}
function show(name: string, rounds: number[][]): void {
  const times = rounds.flat();
  const late = times.filter((time) => time > SOON).length;
  const longest = rounds.map((round) => Math.max(...round).toFixed(1)).join(', ');
  console.log(
    `answers ${name}: median ${median(times).toFixed(2)} ms; ${late} of ${times.length} took more than ${SOON} ms; longest of each round ${longest} ms`,
  );
}
console.log(`${MEBIBYTES} MiB mapped in ${maps.map((time) => time.toFixed(0)).join(', ')} ms`);
show('meanwhile', busy);
show('with nothing going on', quiet);
show('while a stranger keeps a CPU busy', besides);
await step('nobody waited for the kernel', () => {
  // One that waits takes as long as a good part of the map. What else there is, is the machine's.
  for (const [round, times] of busy.entries()) {
    const share = Math.max(...times) / maps[round]!;
    assert.ok(
      share < 1 / 8,
      `the longest answer of round ${round} takes ${share} of its map's time`,
    );
  }
});
slot.close();
pf.close();
memory.close();
assert.equal(await backend.end(), 0);
