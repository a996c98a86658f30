// Runs `vfio-user-sriov` the way a person does: as a process of its own, by its command line.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** The program, as `npm run build` makes it. */
export const EXECUTABLE = fileURLToPath(new URL('../cli.js', import.meta.url));

/** Runs a subcommand to its end and gives its standard output; rejects where it fails. */
export async function run(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [EXECUTABLE, ...args]);
  return stdout;
}

/** A subcommand that runs until it is told to end. */
export class RunningCommand {
  /** Its first line of output: it is ready. */
  readonly ready: Promise<string>;
  /** Standard error so far. */
  log = '';
  readonly #child: ChildProcess;
  readonly #exit: Promise<unknown>;

  constructor(...args: string[]) {
    this.#child = spawn(process.execPath, [EXECUTABLE, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#exit = once(this.#child, 'exit');
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.log += chunk.toString();
    });
    this.ready = new Promise((resolve, reject) => {
      let output = '';
      this.#child.stdout?.on('data', (chunk: Buffer) => {
        output += chunk.toString();
        const end = output.indexOf('\n');
        if (end >= 0) {
          resolve(output.slice(0, end));
        }
      });
      this.#child.once('exit', () => reject(new Error(`${args[0]} ended before it was ready`)));
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** Ends it by SIGTERM and gives its exit code (null: a signal). */
  async stop(): Promise<number | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGTERM');
      await this.#exit;
    }
    return this.#child.exitCode;
  }
}
