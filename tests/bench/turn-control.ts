// Turns of fixed work beside what is measured (steady-turns.ts): how long their longest is, is the machine's doing.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('./steady-turns.js', import.meta.url));

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
