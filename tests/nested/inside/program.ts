// A program of this project, or any other, that runs beside the story: what it prints, and how it ended.
import { type ChildProcess, spawn } from 'node:child_process';
import { until } from './story.ts';

export class Program {
  readonly #child: ChildProcess;
  output = '';
  hasEnded = false;

  constructor(command: readonly string[]) {
    this.#child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
      });
    }
    this.#child.on('exit', () => {
      this.hasEnded = true;
    });
    process.on('exit', () => this.#child.kill('SIGKILL'));
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Waits until it has printed this. A program starts slowly in a host that is emulated, and beside another yet slower. */
  async said(pattern: RegExp, limitMilliseconds = 120_000): Promise<string> {
    await until(
      () => `${pattern} in:\n${this.output}`,
      () => pattern.test(this.output) || this.hasEnded,
      limitMilliseconds,
    );
    const match = pattern.exec(this.output);
    if (match === null) {
      throw new Error(`it ended without ${pattern}:\n${this.output}`);
    }
    return match[0];
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#child.kill(signal);
    await until(`end after ${signal}`, () => this.hasEnded);
  }
}
