// Turns of fixed work beside what is measured (steady-turns.ts): how long their longest is, is the machine's doing.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('./steady-turns.js', import.meta.url));

/** Of the first line of /proc/stat: `cpu`, user, nice, system, idle, iowait, irq, softirq, steal. */
const STEAL = 8;
/** Linux counts hundredths of a second for /proc. */
const TICK_MILLISECONDS = 10;

/** What a hypervisor has taken from this machine's CPUs since it runs: it counts as CPU time of whoever was on them. */
export function stolenMilliseconds(): number {
  const [all] = readFileSync('/proc/stat', 'utf8').split('\n', 1);
  return Number(all!.split(/ +/)[STEAL]) * TICK_MILLISECONDS;
}

export class TurnControl {
  readonly #child: ChildProcess = spawn(process.execPath, [PROGRAM], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  readonly #lines: Interface = createInterface({ input: this.#child.stdout! });

  /** Milliseconds of CPU time, of the longest turn since this was asked for the last time. */
  async takeLongest(): Promise<number> {
    const line = once(this.#lines, 'line');
    this.#child.stdin!.write('\n');
    return Number((await line)[0]);
  }

  async end(): Promise<void> {
    const exit = once(this.#child, 'exit');
    this.#child.stdin!.end();
    await exit;
  }
}
