// A command of vfio-user-sriov as a process of its own, for tests that start backend, glue and QEMU one by one.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { DeviceStatus } from '../../protocol/hotplug/status.ts';
import { CLI } from './sriov-guest.ts';

const PATIENCE_MILLISECONDS = 20_000;

export class CliProcess {
  /** Everything printed so far, on standard output and error. */
  output = '';
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  #look: () => void = () => {};

  constructor(...args: readonly string[]) {
    this.#child = spawn(process.execPath, [CLI, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#exited = once(this.#child, 'close');
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
        this.#look();
      });
    }
    this.#child.on('close', () => this.#look());
    RUNNING.add(this.#child);
    this.#child.on('close', () => RUNNING.delete(this.#child));
  }

  /** Waits until `pattern` has been printed after the first `from` characters. Rejects when the process ends first. */
  async waitFor(pattern: RegExp, from = 0): Promise<RegExpExecArray> {
    return await new Promise((resolve, reject) => {
      const fail = (why: string): void =>
        reject(new Error(`waiting for ${pattern}: ${why}; it printed:\n${this.output}`));
      const timer = setTimeout(() => fail('not in time'), PATIENCE_MILLISECONDS);
      this.#look = () => {
        const match = pattern.exec(this.output.slice(from));
        if (match === null && !this.#hasEnded) {
          return;
        }
        clearTimeout(timer);
        this.#look = () => {};
        if (match === null) {
          fail('the process has ended');
        } else {
          resolve(match);
        }
      };
      this.#look();
    });
  }

  /** Waits for the end; gives the exit code, null after a signal. */
  async ended(): Promise<number | null> {
    await this.#exited;
    return this.#child.exitCode;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(signal: NodeJS.Signals): Promise<number | null> {
    this.#child.kill(signal);
    return await this.ended();
  }

  get #hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }
}

/** What the command `status` says of a running backend. */
export async function statusOf(socketPath: string): Promise<DeviceStatus> {
  const asker = new CliProcess('status', `--socket-path=${socketPath}`, '--json');
  await asker.ended();
  return JSON.parse(asker.output);
}

/** How many VFs' memory that backend says is mapped. */
export async function mappedVfs(socketPath: string): Promise<number> {
  const { vfs } = await statusOf(socketPath);
  return vfs.filter(({ memory }) => memory?.startsWith('mapped')).length;
}

const RUNNING = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of RUNNING) {
    child.kill('SIGKILL');
  }
});
