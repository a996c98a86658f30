// A small process of this program, for calls into the kernel that must not be made in the backend's own. It says that it is
// up, answers each request with one line of JSON on its standard output, and ends with its standard input.
// Used by NumVfsWriter and DmaMapper.
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { Errno } from '../../../protocol/errno.ts';

/** What an answer begins with: the number of its request. */
export interface Numbered {
  readonly id: number;
}

/** The answer to a request that a helper which has ended cannot carry out. */
export interface Ended extends Numbered {
  readonly errno: number;
}

export class HelperProcess<Answer extends Numbered> {
  /** Resolves when the program runs, or has ended: how long a process takes to start says nothing about the kernel. */
  readonly up: Promise<void>;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (answer: Answer | Ended) => void>();
  #nextId = 1;

  /** Starts `program`. Its standard input is a pipe (`stdin`), or the fd given. Call it before VFIO files are open. */
  constructor(program: string, stdin: 'pipe' | number) {
    this.#child = spawn(process.execPath, [program], {
      stdio: [stdin, 'pipe', 'inherit'],
      // Ctrl-C in a terminal goes to the whole process group; a helper must live until the backend is done with it.
      detached: true,
    });
    const lines = createInterface({ input: this.#child.stdout! });
    this.up = new Promise((resolve) => lines.once('line', () => resolve()).once('close', resolve));
    lines.on('line', (line) => {
      this.#settle(JSON.parse(line) as Answer);
    });
    const end = () => {
      for (const id of [...this.#waiting.keys()]) {
        this.#settle({ id, errno: Errno.EPIPE });
      }
    };
    // Not `exit`: the last answer may still be in the pipe.
    this.#child.on('close', end);
    this.#child.on('error', end);
    this.#child.stdin?.on('error', end);
  }

  /** The number for a request that is about to be sent, and its answer: EPIPE when the helper has ended. */
  request(): { id: number; answer: Promise<Answer | Ended> } {
    const id = this.#nextId++;
    const answer = new Promise<Answer | Ended>((resolve) => this.#waiting.set(id, resolve));
    const hasEnded = this.#child.exitCode !== null || this.#child.signalCode !== null;
    if (hasEnded) {
      this.#settle({ id, errno: Errno.EPIPE });
    }
    return { id, answer };
  }

  /** Writes a line to the pipe that is the helper's standard input. */
  writeLine(line: string): void {
    this.#child.stdin!.write(`${line}\n`);
  }

  /** Ends a pipe that is its standard input, and lets this process end without it. */
  close(): void {
    this.#child.stdin?.end();
    this.#child.unref();
  }

  #settle(answer: Answer | Ended): void {
    this.#waiting.get(answer.id)?.(answer);
    this.#waiting.delete(answer.id);
  }
}
