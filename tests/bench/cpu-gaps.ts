// When this machine's CPUs did not run (cpu-gaps.c): what a thread seems to have worked, and was not there.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

interface Gap {
  readonly cpu: string;
  readonly start: number;
  readonly end: number;
}

export class CpuGaps {
  readonly #child: ChildProcess;
  readonly #gaps: Gap[] = [];
  #onLooked: (() => void) | undefined;

  /** Runs `program`. Throws what it says where it may not look. */
  static async watch(program: string): Promise<CpuGaps> {
    const gaps = new CpuGaps(program);
    await gaps.#begun();
    return gaps;
  }

  private constructor(program: string) {
    this.#child = spawn(program, { stdio: ['pipe', 'pipe', 'pipe'] });
  }

  async #begun(): Promise<void> {
    let said = '';
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    const lines = createInterface({ input: this.#child.stdout! });
    const [line] = await Promise.race([once(lines, 'line'), once(this.#child, 'close')]);
    if (line !== 'ready') {
      throw new Error(said.trim());
    }
    lines.on('line', (each) => this.#take(each));
  }

  #take(line: string): void {
    if (line === 'done') {
      this.#onLooked?.();
      return;
    }
    const [cpu, start, end] = line.split(' ');
    this.#gaps.push({ cpu: cpu!, start: Number(start) / 1e9, end: Number(end) / 1e9 });
  }

  /**
   * Milliseconds between two moments, seconds of CLOCK_MONOTONIC, that the CPU did not run which missed most. A gap that goes on beyond
   * them was none of a thread's that was there before and after it.
   */
  async within(start: number, end: number): Promise<number> {
    const looked = new Promise<void>((resolve) => {
      this.#onLooked = resolve;
    });
    this.#child.stdin!.write('\n');
    await looked;
    const byCpu = new Map<string, number>();
    for (const gap of this.#gaps.splice(0)) {
      if (gap.start >= start && gap.end <= end) {
        byCpu.set(gap.cpu, (byCpu.get(gap.cpu) ?? 0) + (gap.end - gap.start) * 1000);
      }
    }
    return Math.max(0, ...byCpu.values());
  }

  async end(): Promise<void> {
    const exit = once(this.#child, 'exit');
    this.#child.stdin!.end();
    await exit;
  }
}
