// A guest of the test lab, as a process: `lab boot --json` (tests/lab/README.md), which takes a line of JSON and answers by one.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** The lab's program, as `npm run build` makes it. */
const LAB = fileURLToPath(new URL('../tests/lab/cli.js', import.meta.url));

/** How a command in the guest ended; `output` is all that it printed. */
export interface CommandResult {
  readonly status: number;
  readonly output: string;
}

export class LabGuest {
  /** Standard error of the lab so far: its progress, and why it failed. */
  log = '';
  readonly #process: ChildProcess;
  readonly #answers: AsyncIterator<string>;
  readonly #exited: Promise<unknown>;

  /** `options` as in the lab's README; `starter` starts QEMU and takes its command line last. */
  constructor(options: readonly string[], starter: readonly string[]) {
    const args = [LAB, 'boot', '--json', ...options, '--', ...starter];
    this.#process = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#exited = once(this.#process, 'exit');
    this.#process.stdin!.on('error', () => {});
    this.#process.stderr!.on('data', (chunk: Buffer) => {
      this.log += chunk.toString();
    });
    this.#answers = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]();
  }

  /** Resolves with QEMU's version when the guest takes commands. */
  async booted(): Promise<string> {
    return String((await this.#answer()).qemu);
  }

  /** Runs a shell command. */
  async run(command: string): Promise<CommandResult> {
    return (await this.#ask(command)) as unknown as CommandResult;
  }

  /** Runs one that must end with 0, and gives its output, trimmed. */
  async check(command: string): Promise<string> {
    const { status, output } = await this.run(command);
    if (status !== 0) {
      throw new Error(`"${command}" ended with ${status} in the guest: ${output}`);
    }
    return output.trim();
  }

  async reboot(): Promise<void> {
    await this.#ask('.reboot');
  }

  /** What the guest's kernel has printed. */
  async consoleLog(): Promise<string> {
    return String((await this.#ask('.console')).console);
  }

  /** Switches the guest off and gives the exit code of what was started. */
  async powerOff(): Promise<number> {
    const { code } = await this.#ask('.poweroff');
    return Number(code);
  }

  /** Ends the guest, however far it has come, and all that it was started with. */
  async end(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      this.#process.kill('SIGTERM');
      await this.#exited;
    }
  }

  async #ask(line: string): Promise<Record<string, unknown>> {
    this.#process.stdin!.write(`${JSON.stringify(line)}\n`);
    return await this.#answer();
  }

  async #answer(): Promise<Record<string, unknown>> {
    const { value, done } = await this.#answers.next();
    if (done === true) {
      throw new Error('the lab has ended');
    }
    const answer = JSON.parse(value) as Record<string, unknown>;
    if (answer.error !== undefined) {
      throw new Error(String(answer.error));
    }
    return answer;
  }
}
