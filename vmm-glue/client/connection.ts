// Messages over a transport: numbers the calls, matches replies, hands over what the server asks of its own accord.
// Knows headers, not bodies. A server that breaks the framing ends the connection, never the process.

import type { Clock, Timer } from '../../protocol/clock.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { commandName } from '../../protocol/vfio-user/commands.ts';
import { encodeFrame, type Frame, FrameAssembler } from '../../protocol/vfio-user/framing.ts';
import { HeaderFlag } from '../../protocol/vfio-user/messages.ts';
import {
  ConnectionClosedError,
  RemoteError,
  ReplyTimeoutError,
  ServerProtocolError,
} from './connection-errors.ts';
import type { Transport } from './transport.ts';

/** The body of a reply and the file descriptors that came with it, which are the caller's to close. */
export interface Reply {
  readonly body: Uint8Array;
  readonly fds: number[];
}

/** A command that the server sent; answer it once, with `reply` or `fail` (both do nothing if it wants no reply). */
export interface IncomingCommand {
  readonly command: number;
  readonly body: Uint8Array;
  /** The handler's to close. */
  readonly fds: number[];
  readonly noReply: boolean;
  reply(body: Uint8Array): void;
  /** Answers with an error reply; `errno` a Linux number other than 0. */
  fail(errno: number): void;
}

/** Sizes in bytes. `replyTimeoutMilliseconds` 0 waits without end. */
export interface ConnectionOptions {
  readonly maxMessageBytes: number;
  readonly maxFds: number;
  readonly replyTimeoutMilliseconds: number;
  readonly clock: Clock;
  /** Gets each command of the server, in order. */
  readonly onCommand: (command: IncomingCommand) => void;
}

interface PendingCall {
  readonly command: number;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
  readonly timer: Timer | undefined;
}

const EMPTY = new Uint8Array(0);
const ID_COUNT = 0x10000;

export class Connection {
  /** Resolves when the connection has ended: with the reason, or undefined after an own `close()`. Never rejects. */
  readonly closed: Promise<Error | undefined>;
  readonly #transport: Transport;
  readonly #options: ConnectionOptions;
  readonly #assembler: FrameAssembler;
  readonly #pending = new Map<number, PendingCall>();
  /** Calls given up on whose reply may still come: their ids must not be used again before. */
  readonly #abandoned = new Set<number>();
  #nextId = 1;
  #ended: ConnectionClosedError | undefined;
  #resolveClosed: (reason: Error | undefined) => void = () => {};

  constructor(transport: Transport, options: ConnectionOptions) {
    this.#transport = transport;
    this.#options = options;
    this.#assembler = new FrameAssembler({
      maxMessageBytes: options.maxMessageBytes,
      maxFds: options.maxFds,
    });
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    transport.start({
      chunk: (bytes, fds) => this.#receive(bytes, fds),
      ended: (reason) =>
        this.#end(new ConnectionClosedError('the server closed the connection', reason)),
    });
  }

  get carriesFds(): boolean {
    return this.#transport.carriesFds;
  }

  get isOpen(): boolean {
    return this.#ended === undefined;
  }

  /**
   * Sends a command and waits for its reply. `fds` stay the caller's.
   * Rejects with RemoteError, ReplyTimeoutError, ServerProtocolError or ConnectionClosedError.
   */
  call(command: number, body: Uint8Array = EMPTY, fds: readonly number[] = []): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) {
        throw this.#ended;
      }
      const id = this.#takeId();
      this.#transport.send(encodeFrame({ id, command, flags: HeaderFlag.command }, body), fds);
      const { clock, replyTimeoutMilliseconds: limit } = this.#options;
      const timer = limit === 0 ? undefined : clock.after(limit, () => this.#giveUp(id, limit));
      this.#pending.set(id, { command, resolve, reject, timer });
    });
  }

  /** A call whose reply carries no fds, and gives its body alone; those of a server that sends some are closed. */
  async callPlain(
    command: number,
    body?: Uint8Array,
    fds?: readonly number[],
  ): Promise<Uint8Array> {
    const reply = await this.call(command, body, fds);
    closeAll(reply.fds);
    return reply.body;
  }

  /** Sends a command that wants no reply. */
  post(command: number, body: Uint8Array = EMPTY, fds: readonly number[] = []): void {
    if (this.#ended !== undefined) {
      throw this.#ended;
    }
    const flags = HeaderFlag.command | HeaderFlag.noReply;
    this.#transport.send(encodeFrame({ id: this.#takeId(), command, flags }, body), fds);
  }

  /** Sends bytes as they are, for tests of what a well-behaved client would never send. */
  sendRaw(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#transport.send(bytes, fds);
  }

  /** Closes the connection; calls in flight reject. */
  close(): void {
    this.#end(undefined);
  }

  #takeId(): number {
    for (let tries = 0; tries < ID_COUNT; tries += 1) {
      const id = this.#nextId;
      this.#nextId = (id + 1) % ID_COUNT;
      if (!this.#pending.has(id) && !this.#abandoned.has(id)) {
        return id;
      }
    }
    throw new Error('vfio-user client: 65536 calls are in flight; await some of them first');
  }

  #receive(bytes: Uint8Array, fds: number[]): void {
    try {
      this.#assembler.push(bytes, fds, (frame) => this.#deliver(frame));
    } catch (error) {
      this.#end(new ConnectionClosedError('the server broke the protocol', asError(error)));
    }
  }

  #deliver(frame: Frame): void {
    if (frame.isReply) {
      this.#settle(frame);
    } else {
      this.#options.onCommand(this.#incoming(frame));
    }
  }

  #settle(frame: Frame): void {
    const call = this.#pending.get(frame.id);
    if (call === undefined) {
      // An answer that comes after its time limit, or to nothing that was asked.
      this.#abandoned.delete(frame.id);
      closeAll(frame.fds);
      return;
    }
    this.#pending.delete(frame.id);
    call.timer?.cancel();
    if (frame.command !== call.command) {
      closeAll(frame.fds);
      call.reject(
        new ServerProtocolError(
          `reply ${frame.id} names command ${frame.command}, but command ${call.command} was sent`,
          commandName(call.command),
        ),
      );
    } else if (frame.error !== 0) {
      closeAll(frame.fds);
      call.reject(new RemoteError(call.command, frame.error));
    } else {
      call.resolve({ body: frame.body.slice(), fds: frame.fds });
    }
  }

  #incoming(frame: Frame): IncomingCommand {
    const { id, command, noReply, fds } = frame;
    const answer = (error: number, body: Uint8Array): void => {
      if (noReply || this.#ended !== undefined) {
        return;
      }
      const flags = HeaderFlag.reply | (error === 0 ? 0 : HeaderFlag.error);
      this.#transport.send(encodeFrame({ id, command, flags, error }, body));
    };
    return {
      command,
      noReply,
      fds,
      body: frame.body.slice(),
      reply: (body) => answer(0, body),
      fail: (errno) => answer(errno, EMPTY),
    };
  }

  #giveUp(id: number, milliseconds: number): void {
    const call = this.#pending.get(id);
    if (call !== undefined) {
      this.#pending.delete(id);
      this.#abandoned.add(id);
      call.reject(new ReplyTimeoutError(call.command, milliseconds));
    }
  }

  #end(reason: ConnectionClosedError | undefined): void {
    if (this.#ended !== undefined) {
      return;
    }
    this.#ended = reason ?? new ConnectionClosedError('the connection was closed by its owner');
    this.#transport.close();
    closeAll(this.#assembler.takePendingFds());
    for (const call of this.#pending.values()) {
      call.timer?.cancel();
      call.reject(this.#ended);
    }
    this.#pending.clear();
    this.#resolveClosed(reason);
  }
}

/** Closes file descriptors that nobody wants. */
export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) {
    closeFd(fd);
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
