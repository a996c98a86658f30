// The control of a measurement of the longest turn: turns of fixed work that allocate nothing, so that the longest of them is the
// machine's doing (interrupts, what a hypervisor takes without a word, cold caches). Run by turn-control.ts; gives the longest
// turn's milliseconds of CPU time since it was last asked, for each line on standard input.
import { createInterface } from 'node:readline';
import { threadCpuMilliseconds } from '../../protocol/unix/libc.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';

/** About as many turns as the device thread has, each about as long as its work may take. */
const PAUSE_MILLISECONDS = 1;
const WORK_MILLISECONDS = 0.1;
const WARMING = 500;

let state = 1;
let longest = 0;

function work(steps: number): void {
  for (let step = 0; step < steps; step++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
  }
}

function turn(steps: number): number {
  const began = threadCpuMilliseconds();
  work(steps);
  return threadCpuMilliseconds() - began;
}

/** Steps that take so long on this machine. */
function stepsOf(milliseconds: number): number {
  const sample = 10_000;
  const times = Array.from({ length: WARMING }, () => turn(sample)).sort((a, b) => a - b);
  return Math.ceil((sample * milliseconds) / times[WARMING >> 1]!);
}

const steps = stepsOf(WORK_MILLISECONDS);

function goOn(): void {
  longest = Math.max(longest, turn(steps));
  processClock.after(PAUSE_MILLISECONDS, goOn);
}

createInterface({ input: process.stdin })
  .on('line', () => {
    process.stdout.write(`${longest}\n`);
    longest = 0;
  })
  .on('close', () => process.exit());
goOn();
