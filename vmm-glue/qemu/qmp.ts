// A client of QEMU's machine protocol (QMP) on a unix socket: greeting, commands with time limits, events.
// A connection that is slow, refuses or vanishes becomes an error that says so; nothing waits without end.
// monitor.ts keeps one open; the tests' fake QEMU is its other side.
import { createConnection, type Socket } from 'node:net';
import type { Clock, Timer } from '../../protocol/clock.ts';
import { ExplainedError, systemErrorIn } from '../../protocol/explained-error.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { object, optional, type Reader, text, whole } from './answers.ts';
import { LineReader } from './line-reader.ts';
import { sendLine } from './line-writer.ts';

/** QEMU answered a command with an error. `qmpClass` is QEMU's class of it, `description` its own words. */
export class QmpError extends ExplainedError {
  override readonly name = 'QmpError';
  readonly command: string;
  readonly qmpClass: string;
  readonly description: string;

  constructor(command: string, qmpClass: string, description: string) {
    super({ call: `QMP ${command}`, what: `QEMU answered "${description}"` });
    this.command = command;
    this.qmpClass = qmpClass;
    this.description = description;
  }
}

/** Reads the answer to a command; one that is not of that shape is an error like QEMU's own. @throws QmpError */
export function readAnswer<T>(command: string, answer: unknown, reader: Reader<T>): T {
  const value = reader(answer);
  if (value === undefined) {
    const shown = String(JSON.stringify(answer)).slice(0, 80);
    throw new QmpError(command, 'Malformed', `${shown}, which is no answer to that`);
  }
  return value;
}

/** No answer could be had: nobody listens, the connection broke, or a time limit passed (`timedOut`). */
export class QmpUnavailableError extends ExplainedError {
  override readonly name = 'QmpUnavailableError';
  declare readonly path: string;
  /** The connection may still be there, and what was sent may still be carried out. */
  readonly timedOut: boolean;

  constructor(path: string, what: string, timedOut = false, fix?: string) {
    super({ call: 'QMP socket', path, what, fix });
    this.timedOut = timedOut;
  }
}

/** An event as QEMU sends it: `event` is its name, `data` depends on it. */
export interface QmpEvent {
  readonly event: string;
  readonly data?: unknown;
  /** When it happened by QEMU's clock, in milliseconds since 1970; NaN where QEMU did not say. */
  readonly milliseconds: number;
}

export interface QmpOptions {
  /** For the connection, the greeting and each command, unless a command names its own. Default 5000. */
  readonly timeoutMilliseconds?: number;
  readonly onEvent?: (event: QmpEvent) => void;
  readonly clock?: Clock;
  /** Closes the connection, also while it is being made. */
  readonly signal?: AbortSignal;
}

interface Pending {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: Timer;
}

const DEFAULT_TIMEOUT = 5_000;
const FIRST_ANSWER_MILLISECONDS = 60_000;
const NO_ID = 0;
/** No answer of QEMU's comes near; more means that the other side is no QEMU. */
const MAX_LINE_CHARACTERS = 8 * 1024 * 1024;

const readTimestamp = object({ seconds: whole, microseconds: whole });
const readError = object({ class: text, desc: text });
const readId = optional(whole);

export class QmpClient {
  readonly path: string;
  /** Resolves with the reason when the connection has ended, undefined after `close()`. Never rejects. */
  readonly closed: Promise<Error | undefined>;
  readonly #socket: Socket;
  readonly #timeout: number;
  readonly #clock: Clock;
  readonly #onEvent: (event: QmpEvent) => void;
  /** By id; NO_ID is that of a command sent without one. */
  readonly #pending = new Map<number, Pending>();
  #nextId = NO_ID + 1;
  /** The answer to a command without an id is still to come, though perhaps nobody waits for it any more. */
  #owesPlainAnswer = false;
  readonly #lines = new LineReader(MAX_LINE_CHARACTERS);
  #greeted: ((error?: Error) => void) | undefined;
  #isOpen = true;
  #reportClosed: (reason: Error | undefined) => void = () => {};

  /** Connects and leaves negotiation mode. Rejects with QmpUnavailableError or QmpError. */
  static async connect(path: string, options: QmpOptions = {}): Promise<QmpClient> {
    const client = new QmpClient(path, createConnection({ path }), options);
    try {
      await client.#greeting();
      // A QEMU that is still making its devices greets, and answers when it has made them.
      await client.execute('qmp_capabilities', undefined, FIRST_ANSWER_MILLISECONDS);
      return client;
    } catch (error) {
      client.#end(error as Error);
      throw error;
    }
  }

  private constructor(path: string, socket: Socket, options: QmpOptions) {
    const { signal } = options;
    this.path = path;
    this.#socket = socket;
    this.#timeout = options.timeoutMilliseconds ?? DEFAULT_TIMEOUT;
    this.#clock = options.clock ?? processClock;
    this.#onEvent = options.onEvent ?? (() => {});
    this.closed = new Promise((resolve) => {
      this.#reportClosed = resolve;
    });
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => this.#take(chunk));
    socket.on('error', (error: NodeJS.ErrnoException) => this.#end(this.#connectionError(error)));
    socket.on('close', () =>
      this.#end(new QmpUnavailableError(path, 'QEMU closed the connection')),
    );
    const close = (): void => this.close();
    signal?.addEventListener('abort', close);
    void this.closed.then(() => signal?.removeEventListener('abort', close));
    if (signal?.aborted === true) {
      close();
    }
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Runs one command and gives its return value. Rejects with QmpError or QmpUnavailableError. */
  execute(
    command: string,
    args?: Record<string, unknown>,
    timeoutMilliseconds = this.#timeout,
  ): Promise<unknown> {
    if (!this.#isOpen) {
      return Promise.reject(new QmpUnavailableError(this.path, 'the connection is closed'));
    }
    // An id tells answers apart, and nothing else needs it. QEMU (seen with 11.1) reads its monitor byte by byte, so that
    // the length of a line is most of what a command costs: the ten bytes of an id were a tenth of a port write.
    const id = this.#owesPlainAnswer ? this.#nextId++ : NO_ID;
    if (id === NO_ID) {
      this.#owesPlainAnswer = true;
    }
    return new Promise((resolve, reject) => {
      const timer = this.#clock.after(timeoutMilliseconds, () => {
        this.#pending.delete(id);
        const cause = `QEMU did not answer ${command} within ${timeoutMilliseconds} ms`;
        reject(new QmpUnavailableError(this.path, cause, true));
      });
      this.#pending.set(id, { command, resolve, reject, timer });
      // What is undefined is left out of the JSON.
      const message = { execute: command, arguments: args, id: id === NO_ID ? undefined : id };
      sendLine(this.#socket, JSON.stringify(message));
    });
  }

  /** Ends the connection; what still waits for an answer rejects. */
  close(): void {
    this.#end(undefined);
  }

  #greeting(): Promise<void> {
    if (!this.#isOpen) {
      return Promise.reject(new QmpUnavailableError(this.path, 'the connection is closed'));
    }
    return new Promise((resolve, reject) => {
      const timer = this.#clock.after(this.#timeout, () => {
        this.#greeted?.(
          new QmpUnavailableError(
            this.path,
            `no greeting within ${this.#timeout} ms: QEMU hangs, or another program holds this monitor; ` +
              'give the glue a QMP socket of its own (-qmp unix:PATH,server=on,wait=off)',
            true,
          ),
        );
      });
      this.#greeted = (error) => {
        timer.cancel();
        this.#greeted = undefined;
        if (error === undefined) {
          resolve();
        } else {
          reject(error);
        }
      };
    });
  }

  #take(chunk: string): void {
    const lines = this.#lines.take(chunk);
    if (lines === undefined) {
      this.#end(new QmpUnavailableError(this.path, 'the other side sends no lines: it is no QEMU'));
      return;
    }
    for (const line of lines) {
      if (!this.#isOpen) {
        return;
      }
      if (line.trim() !== '' && !this.#takeMessage(line)) {
        const cause = `the other side sent ${JSON.stringify(line.trim().slice(0, 40))}, which is not QMP`;
        this.#end(new QmpUnavailableError(this.path, `${cause}; check the path`));
      }
    }
  }

  /** False where this is none of QEMU's messages. */
  #takeMessage(line: string): boolean {
    const message = readMessage(line);
    if (message === undefined) {
      return false;
    }
    if ('QMP' in message) {
      this.#greeted?.();
      return true;
    }
    if ('event' in message) {
      return this.#takeEvent(message);
    }
    return ('return' in message || 'error' in message) && this.#takeAnswer(message);
  }

  #takeEvent(message: Record<string, unknown>): boolean {
    const event = text(message.event);
    if (event === undefined) {
      return false;
    }
    const time = readTimestamp(message.timestamp);
    const milliseconds =
      time === undefined ? Number.NaN : time.seconds * 1000 + time.microseconds / 1000;
    this.#onEvent({ event, data: message.data, milliseconds });
    return true;
  }

  #takeAnswer(message: Record<string, unknown>): boolean {
    const given = readId(message.id);
    const error = readError(message.error);
    if (given === undefined || ('error' in message && error === undefined)) {
      return false;
    }
    const id = given ?? NO_ID;
    if (id === NO_ID) {
      this.#owesPlainAnswer = false;
    }
    const pending = this.#pending.get(id);
    // Without one, it is the late answer to a command whose time limit has passed.
    if (pending === undefined) {
      return true;
    }
    this.#pending.delete(id);
    pending.timer.cancel();
    if (error === undefined) {
      pending.resolve(message.return);
    } else {
      pending.reject(new QmpError(pending.command, error.class, error.desc));
    }
    return true;
  }

  #connectionError(error: NodeJS.ErrnoException): QmpUnavailableError {
    const causes: Readonly<Record<string, readonly [what: string, fix?: string]>> = {
      ENOENT: ['no such socket', 'start QEMU with -qmp unix:PATH,server=on,wait=off'],
      ECONNREFUSED: ['nobody listens there: its QEMU has ended'],
      EACCES: ['permission denied', 'run as the user that QEMU runs as'],
    };
    const [what, fix] = causes[error.code ?? ''] ?? [systemErrorIn(error)?.what ?? error.message];
    return new QmpUnavailableError(this.path, what, false, fix);
  }

  #end(reason: Error | undefined): void {
    if (!this.#isOpen) {
      return;
    }
    this.#isOpen = false;
    const error = reason ?? new QmpUnavailableError(this.path, 'the connection is closed');
    this.#greeted?.(error);
    for (const pending of this.#pending.values()) {
      pending.timer.cancel();
      pending.reject(error);
    }
    this.#pending.clear();
    this.#socket.destroy();
    this.#reportClosed(reason);
  }
}

function readMessage(line: string): Record<string, unknown> | undefined {
  try {
    const message: unknown = JSON.parse(line);
    return isObject(message) ? message : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
