// A child process by what matters of it here: how it ended, and ending it.
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { constants } from 'node:os';
import type { Clock } from '../../protocol/clock.ts';

/** How a process ended; one of the two is null. */
export interface ProcessEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class Child {
  readonly process: ChildProcess;
  /** Never rejects: a program that could not be started ends with code 127. */
  readonly ended: Promise<ProcessEnd>;
  readonly #clock: Clock;
  #end: ProcessEnd | undefined;

  constructor(command: readonly string[], options: SpawnOptions, clock: Clock) {
    this.#clock = clock;
    this.process = spawn(command[0]!, command.slice(1), options);
    this.ended = new Promise((resolve) => {
      const end = (value: ProcessEnd): void => {
        this.#end ??= value;
        resolve(this.#end);
      };
      this.process.on('exit', (code, signal) => end({ code, signal }));
      this.process.on('error', () => {
        if (this.process.pid === undefined) {
          end({ code: 127, signal: null });
        }
      });
    });
  }

  get hasEnded(): boolean {
    return this.#end !== undefined;
  }

  /** Asks it to end, and makes it after `graceMilliseconds`. */
  async end(graceMilliseconds: number): Promise<ProcessEnd> {
    if (this.#end !== undefined) {
      return this.#end;
    }
    this.process.kill('SIGTERM');
    const timer = this.#clock.after(graceMilliseconds, () => this.process.kill('SIGKILL'));
    const end = await this.ended;
    timer.cancel();
    return end;
  }
}

/** The exit status that a shell would show. */
export function exitStatus(end: ProcessEnd): number {
  return end.code ?? 128 + (end.signal === null ? 0 : constants.signals[end.signal]);
}

/** For people. */
export function describeEnd(end: ProcessEnd): string {
  return end.signal === null ? `exit status ${end.code}` : `signal ${end.signal}`;
}
