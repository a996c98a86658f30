// `serve --pf` as a process of its own, as a person starts it.
import { strict as assert } from 'node:assert';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { askBackend } from '../../../../vmm-glue/client/observer.ts';
import { PF, until } from './scenario.ts';

export const CLI = fileURLToPath(new URL('../../../../cli.js', import.meta.url));

interface FunctionStatus {
  readonly messages: number;
  readonly interrupts: number;
  readonly failedMaps: readonly string[];
}

export interface Status {
  readonly phase: string;
  readonly failure: string | null;
  readonly numVfs: number;
  readonly pf: FunctionStatus;
  readonly vfs: readonly ({ readonly index: number; readonly state: string } & FunctionStatus)[];
  readonly quarantine: readonly { readonly vfIndex: number; readonly holder: string }[];
}

export class BackendProcess {
  readonly socketPath: string;
  /** Standard error so far. */
  log = '';
  readonly #child: ChildProcess;
  readonly #ready: Promise<void>;
  readonly #exit: Promise<unknown>;

  constructor(socketPath: string, args: readonly string[] = []) {
    this.socketPath = socketPath;
    const all = [
      'serve',
      `--pf=${PF}`,
      `--socket-path=${socketPath}`,
      '--log-format=json',
      ...args,
    ];
    this.#child = spawn(process.execPath, [CLI, ...all], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#exit = once(this.#child, 'exit');
    this.#child.stderr!.on('data', (chunk: Buffer) => {
      this.log += chunk.toString();
    });
    this.#ready = new Promise((resolve, reject) => {
      this.#child.stdout!.once('data', () => resolve());
      this.#child.once('exit', () => reject(new Error(`the backend ended: ${this.log}`)));
    });
    this.#ready.catch(() => {});
    // A scenario that fails leaves no backend to the next one.
    process.on('exit', () => this.#child.kill('SIGKILL'));
  }

  /** Starts one and waits until clients can connect. Rejects with its log when it ends first. */
  static async start(socketPath: string, args: readonly string[] = []): Promise<BackendProcess> {
    const backend = new BackendProcess(socketPath, args);
    await backend.#ready;
    return backend;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Ends it by a signal; gives its exit code, or null. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.#child.kill(signal);
    await this.#exit;
    return this.#child.exitCode;
  }

  /** Waits until it ends by itself. */
  async ended(): Promise<number | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      await this.#exit;
    }
    return this.#child.exitCode;
  }

  async status(): Promise<Status> {
    const args = [CLI, 'status', `--socket-path=${this.socketPath}`, '--json'];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    return JSON.parse(stdout) as Status;
  }

  /** Has a rule's fault happen while `work` is done. */
  async whileFaulty(rule: string, work: () => Promise<void>): Promise<void> {
    await askBackend(this.socketPath, async (client) => {
      assert.equal((await client.faults({ add: rule })).refusal, null);
      await work();
      await client.faults({ clear: 0 });
    });
  }

  /** Waits until its log has such a line: a line arrives later than the reply to what caused it. */
  async logs(pattern: RegExp): Promise<void> {
    await until(`the log has ${pattern}`, () => pattern.test(this.log));
  }

  /** Waits until it is in a phase. */
  async reaches(phase: string, limit = 20_000): Promise<Status> {
    const deadline = Date.now() + limit;
    for (;;) {
      const status = await this.status();
      if (status.phase === phase) {
        return status;
      }
      if (Date.now() > deadline) {
        throw new Error(`the backend is ${status.phase}, not ${phase}; its log:\n${this.log}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
