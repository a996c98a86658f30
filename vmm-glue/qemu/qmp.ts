// A client of QEMU's machine protocol (QMP) on a unix socket: greeting, commands with time limits, events.
// A connection that is slow, refuses or vanishes becomes an error that says so; nothing waits without end.
// monitor.ts keeps one open; the tests' fake QEMU is its other side.
import { createConnection, type Socket } from 'node:net';

/** QEMU answered a command with an error. `qmpClass` is QEMU's class of it, `description` its own words. */
export class QmpError extends Error {
  readonly command: string;
  readonly qmpClass: string;
  readonly description: string;

  constructor(command: string, qmpClass: string, description: string) {
    super(`QMP ${command}: QEMU answered "${description}"`);
    this.name = 'QmpError';
    this.command = command;
    this.qmpClass = qmpClass;
    this.description = description;
  }
}

/** No answer could be had: nobody listens, the connection broke, or a time limit passed (`timedOut`). */
export class QmpUnavailableError extends Error {
  readonly path: string;
  /** The connection may still be there, and what was sent may still be carried out. */
  readonly timedOut: boolean;

  constructor(path: string, cause: string, timedOut = false) {
    super(`QMP socket ${path}: ${cause}`);
    this.name = 'QmpUnavailableError';
    this.path = path;
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
}

interface Pending {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

const DEFAULT_TIMEOUT = 5_000;
const FIRST_ANSWER_MILLISECONDS = 60_000;
const NO_ID = 0;
/** No answer of QEMU's comes near; more means that the other side is no QEMU. */
const MAX_LINE_CHARACTERS = 64 * 1024 * 1024;

export class QmpClient {
  readonly path: string;
  /** Resolves with the reason when the connection has ended, undefined after `close()`. Never rejects. */
  readonly closed: Promise<Error | undefined>;
  readonly #socket: Socket;
  readonly #timeout: number;
  readonly #onEvent: (event: QmpEvent) => void;
  /** By id; NO_ID is that of a command sent without one. */
  readonly #pending = new Map<number, Pending>();
  #nextId = NO_ID + 1;
  /** The answer to a command without an id is still to come, though perhaps nobody waits for it any more. */
  #owesPlainAnswer = false;
  #text = '';
  #greeted: ((error?: Error) => void) | undefined;
  #isOpen = true;
  #reportClosed: (reason: Error | undefined) => void = () => {};

  /** Connects and leaves negotiation mode. Rejects with QmpUnavailableError or QmpError. */
  static async connect(path: string, options: QmpOptions = {}): Promise<QmpClient> {
    const timeout = options.timeoutMilliseconds ?? DEFAULT_TIMEOUT;
    const socket = createConnection({ path });
    const client = new QmpClient(path, socket, timeout, options.onEvent ?? (() => {}));
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

  private constructor(
    path: string,
    socket: Socket,
    timeout: number,
    onEvent: (event: QmpEvent) => void,
  ) {
    this.path = path;
    this.#socket = socket;
    this.#timeout = timeout;
    this.#onEvent = onEvent;
    this.closed = new Promise((resolve) => {
      this.#reportClosed = resolve;
    });
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => this.#take(chunk));
    socket.on('error', (error: NodeJS.ErrnoException) => this.#end(this.#connectionError(error)));
    socket.on('close', () =>
      this.#end(new QmpUnavailableError(path, 'QEMU closed the connection')),
    );
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
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        const cause = `QEMU did not answer ${command} within ${timeoutMilliseconds} ms`;
        reject(new QmpUnavailableError(this.path, cause, true));
      }, timeoutMilliseconds);
      this.#pending.set(id, { command, resolve, reject, timer });
      // What is undefined is left out of the JSON.
      const message = { execute: command, arguments: args, id: id === NO_ID ? undefined : id };
      this.#socket.write(`${JSON.stringify(message)}\n`);
    });
  }

  /** Ends the connection; what still waits for an answer rejects. */
  close(): void {
    this.#end(undefined);
  }

  #greeting(): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#greeted?.(
          new QmpUnavailableError(
            this.path,
            `no greeting within ${this.#timeout} ms: QEMU hangs, or another program holds this monitor; ` +
              'give the glue a QMP socket of its own (-qmp unix:PATH,server=on,wait=off)',
            true,
          ),
        );
      }, this.#timeout);
      this.#greeted = (error) => {
        clearTimeout(timer);
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
    this.#text += chunk;
    if (this.#text.length > MAX_LINE_CHARACTERS) {
      this.#end(new QmpUnavailableError(this.path, 'the other side sends no lines: it is no QEMU'));
      return;
    }
    let end = this.#text.indexOf('\n');
    while (end >= 0) {
      const line = this.#text.slice(0, end).trim();
      this.#text = this.#text.slice(end + 1);
      if (line !== '') {
        this.#takeLine(line);
      }
      end = this.#text.indexOf('\n');
    }
  }

  #takeLine(line: string): void {
    let message: Record<string, unknown>;
    try {
      message = Object(JSON.parse(line));
    } catch {
      const cause = `the other side sent ${JSON.stringify(line.slice(0, 40))}, which is not QMP`;
      this.#end(new QmpUnavailableError(this.path, `${cause}; check the path`));
      return;
    }
    if ('QMP' in message) {
      this.#greeted?.();
    } else if (typeof message.event === 'string') {
      const { seconds, microseconds } = Object(message.timestamp);
      const milliseconds = Number(seconds) * 1000 + Number(microseconds) / 1000;
      this.#onEvent({ event: message.event, data: message.data, milliseconds });
    } else {
      this.#takeAnswer(message);
    }
  }

  #takeAnswer(message: Record<string, unknown>): void {
    const id = Number(message.id ?? NO_ID);
    if (id === NO_ID) {
      this.#owesPlainAnswer = false;
    }
    const pending = this.#pending.get(id);
    // Without one, it is the late answer to a command whose time limit has passed.
    if (pending === undefined) {
      return;
    }
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if ('error' in message) {
      const error = Object(message.error) as { class?: unknown; desc?: unknown };
      pending.reject(
        new QmpError(pending.command, String(error.class ?? ''), String(error.desc ?? 'no reason')),
      );
    } else {
      pending.resolve(message.return);
    }
  }

  #connectionError(error: NodeJS.ErrnoException): QmpUnavailableError {
    const causes: Record<string, string> = {
      ENOENT: 'no such socket; start QEMU with -qmp unix:PATH,server=on,wait=off',
      ECONNREFUSED: 'nobody listens there: its QEMU has ended',
      EACCES: 'permission denied; run as the user that QEMU runs as',
    };
    return new QmpUnavailableError(this.path, causes[error.code ?? ''] ?? error.message);
  }

  #end(reason: Error | undefined): void {
    if (!this.#isOpen) {
      return;
    }
    this.#isOpen = false;
    const error = reason ?? new QmpUnavailableError(this.path, 'the connection is closed');
    this.#greeted?.(error);
    for (const pending of this.#pending.values()) {
      clearTimeout(pending.timer);
      pending.reject(error);
    }
    this.#pending.clear();
    this.#socket.destroy();
    this.#reportClosed(reason);
  }
}
