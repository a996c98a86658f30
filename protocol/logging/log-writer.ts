// Lines on their way to standard error, which may be a pipe that nobody empties or a file on a full disk. The log gives
// up lines, never the work: a write never waits, what finds no room waits in a bounded buffer, and what finds no room
// there is counted, and the count told where they are missing.
import type { Clock, Timer } from '../clock.ts';

/** Writes as many of the bytes as can be had without waiting; gives how many, or -errno. */
export type Output = (bytes: Uint8Array) => number;

export interface LogWriterOptions {
  readonly output: Output;
  /** One whose timers keep nothing alive. */
  readonly clock: Clock;
  /** The line that tells how many were dropped, with its end. */
  readonly lossLine: (count: number) => string;
  /** Bytes that may wait. */
  readonly maxWaitingBytes?: number;
}

const MAX_WAITING_BYTES = 1 << 20;
const RETRY_MILLISECONDS = 50;

export class LogWriter {
  readonly #options: LogWriterOptions;
  readonly #encoder = new TextEncoder();
  readonly #maxWaitingBytes: number;
  /** The first one may be the rest of a line. */
  readonly #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #dropped = 0;
  #retry: Timer | undefined;

  constructor(options: LogWriterOptions) {
    this.#options = options;
    this.#maxWaitingBytes = options.maxWaitingBytes ?? MAX_WAITING_BYTES;
  }

  /** Takes a line with its end. */
  write(line: string): void {
    if (this.#dropped > 0 && this.#keep(this.#options.lossLine(this.#dropped))) {
      this.#dropped = 0;
    }
    if (this.#dropped > 0 || !this.#keep(line)) {
      this.#dropped++;
    }
    this.drain();
  }

  /** Writes what has room; true where nothing waits any more. */
  drain(): boolean {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      const written = Math.max(0, this.#options.output(next));
      this.#waitingBytes -= written;
      if (written < next.length) {
        this.#waiting[0] = next.subarray(written);
        this.#tryLater();
        return false;
      }
      this.#waiting.shift();
    }
    return true;
  }

  #keep(line: string): boolean {
    const bytes = this.#encoder.encode(line);
    if (this.#waitingBytes + bytes.length > this.#maxWaitingBytes) {
      return false;
    }
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    return true;
  }

  #tryLater(): void {
    this.#retry ??= this.#options.clock.after(RETRY_MILLISECONDS, () => {
      this.#retry = undefined;
      this.drain();
    });
  }
}
