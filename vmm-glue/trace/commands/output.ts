// Standard output for many lines: gathered into large pieces, never faster than the reader, ended by the reader's end.

import type { WriteStream } from 'node:tty';

const PIECE_CHARACTERS = 64 * 1024;

export class Output {
  readonly #stream: NodeJS.WriteStream;
  #gathered: string[] = [];
  #characters = 0;
  #needsDrain = false;
  /** Nobody reads any more. */
  isClosed = false;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
    stream.on('error', () => {
      this.isClosed = true;
    });
  }

  /** The stream is a terminal, and nothing says that it must stay plain (no-color.org). */
  get hasColours(): boolean {
    const { NO_COLOR, FORCE_COLOR, TERM } = process.env;
    if (NO_COLOR !== undefined && NO_COLOR !== '') {
      return false;
    }
    if (FORCE_COLOR !== undefined) {
      return FORCE_COLOR !== '0' && FORCE_COLOR !== 'false';
    }
    return (this.#stream as Partial<WriteStream>).isTTY === true && TERM !== 'dumb';
  }

  get isFull(): boolean {
    return this.#needsDrain;
  }

  line(text: string): void {
    this.#gathered.push(text);
    this.#characters += text.length + 1;
    if (this.#characters >= PIECE_CHARACTERS) {
      this.#write();
    }
  }

  lines(texts: readonly string[]): void {
    for (const text of texts) {
      this.line(text);
    }
  }

  /** What was gathered is out, and the reader has room for more. */
  async drained(): Promise<void> {
    this.#write();
    if (!this.#needsDrain || this.isClosed) {
      return;
    }
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#stream.off('drain', done).off('error', done).off('close', done);
        resolve();
      };
      this.#stream.on('drain', done).on('error', done).on('close', done);
    });
    this.#needsDrain = false;
  }

  async end(): Promise<void> {
    await this.drained();
  }

  #write(): void {
    if (this.#characters === 0 || this.isClosed) {
      return;
    }
    const text = `${this.#gathered.join('\n')}\n`;
    this.#gathered = [];
    this.#characters = 0;
    this.#needsDrain = !this.#stream.write(text);
  }
}
