// A client of QEMU's qtest protocol on a unix socket, as far as it reads and writes guest memory: a line for each command,
// and a line in answer, in order. Memory is reached as by a CPU, whether the guest runs or not.
import { createConnection, type Socket } from 'node:net';
import type { Clock } from '../../protocol/clock.ts';
import { LineReader } from './line-reader.ts';
import { sendLine } from './line-writer.ts';

interface Pending {
  readonly resolve: (value: string) => void;
  readonly reject: (error: Error) => void;
}

const TIMEOUT_MILLISECONDS = 5_000;
/** An answer is a word and a number. */
const MAX_LINE_CHARACTERS = 1024;

export class QtestClient {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #socket: Socket;
  readonly #lines = new LineReader(MAX_LINE_CHARACTERS);
  readonly #pending: Pending[] = [];
  #isOpen = true;

  /** Rejects where nobody listens. */
  static async connect(path: string, clock: Clock): Promise<QtestClient> {
    const socket = createConnection({ path });
    const client = new QtestClient(path, socket, clock);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return client;
  }

  private constructor(path: string, socket: Socket, clock: Clock) {
    this.#path = path;
    this.#clock = clock;
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (chunk: string) => this.#take(chunk));
    socket.on('error', (error) => this.#end(error.message));
    socket.on('close', () => this.#end('QEMU has closed the connection'));
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Gives what stands behind OK. Rejects where QEMU says anything else, or nothing in time. */
  execute(command: string): Promise<string> {
    return new Promise((resolve, reject) => {
      if (!this.#isOpen) {
        reject(this.#error('the connection is closed'));
        return;
      }
      const timer = this.#clock.after(TIMEOUT_MILLISECONDS, () =>
        this.#end(`no answer to "${command}" within ${TIMEOUT_MILLISECONDS / 1000} s`),
      );
      this.#pending.push({
        resolve: (answer) => {
          timer.cancel();
          const match = /^OK(?: (.*))?$/.exec(answer);
          if (match === null) {
            reject(this.#error(`"${command}" was answered by "${answer}"`));
          } else {
            resolve(match[1] ?? '');
          }
        },
        reject: (error) => {
          timer.cancel();
          reject(error);
        },
      });
      sendLine(this.#socket, command);
    });
  }

  close(): void {
    this.#end('it was closed');
  }

  #take(chunk: string): void {
    const lines = this.#lines.take(chunk);
    if (lines === undefined) {
      this.#end('an answer without end');
      return;
    }
    for (const line of lines) {
      this.#pending.shift()?.resolve(line.trimEnd());
    }
  }

  #end(cause: string): void {
    this.#isOpen = false;
    this.#socket.destroy();
    for (const { reject } of this.#pending.splice(0)) {
      reject(this.#error(cause));
    }
  }

  #error(cause: string): Error {
    return new Error(`QEMU's qtest socket ${this.#path}: ${cause}`);
  }
}
