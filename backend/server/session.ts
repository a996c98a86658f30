// One vfio-user connection: reads messages, answers each in order, and is the only place where errors become replies.
// Pure of sockets: bytes come in through `receive`, replies go out through the Connection.

import { Errno, errnoName, WireError } from '../../protocol/errno.ts';
import { ExplainedError } from '../../protocol/explained-error.ts';
import type { Log } from '../../protocol/log.ts';
import { commandName } from '../../protocol/vfio-user/commands.ts';
import {
  encodeHeaderInto,
  type Frame,
  FrameAssembler,
  FramingError,
} from '../../protocol/vfio-user/framing.ts';
import { Header, HeaderFlag } from '../../protocol/vfio-user/messages.ts';
import type { AgreedCapabilities } from '../../protocol/vfio-user/negotiation.ts';
import type { Endpoint, PeerSession, ReplyTaker, Role } from '../hotplug/endpoint.ts';
import type { Connection } from './connection.ts';
import { type Handlers, handlerFor, LATER } from './handler.ts';
import { MAX_FDS, MAX_GREETING_BYTES, MAX_MESSAGE_BYTES } from './limits.ts';
import { OwnCommands } from './own-commands.ts';
import { Turn, type TurnClock } from './turn.ts';
import { WaitingMessages } from './waiting-messages.ts';

const NOTHING = new Uint8Array(0);

export class Session implements PeerSession {
  readonly endpoint: Endpoint;
  readonly connection: Connection;
  readonly log: Log;
  role: Role = 'device';
  messages = 0;
  /** The log has a word about guest memory that no device can reach. */
  warnedOfPrivateMemory = false;
  readonly #handlers: Handlers;
  readonly #turn: Turn;
  #agreed: AgreedCapabilities | undefined;
  readonly #assembler = new FrameAssembler({
    maxMessageBytes: MAX_GREETING_BYTES,
    maxFds: MAX_FDS,
  });
  /** Bytes that were received and not looked at: the others have their turn first. */
  #rest: Uint8Array = NOTHING;
  readonly #clock: TurnClock;
  readonly #waiting = new WaitingMessages();
  readonly #ownCommands = new OwnCommands();
  #deferred: Frame | undefined;
  /** What is left of a message that takes more than one turn. */
  #piece: (() => void) | undefined;
  readonly #replyFds: number[] = [];
  /** When the message at hand came, and the deferred one; known where somebody observes. */
  #began = 0;
  #deferredBegan = 0;
  #open = true;
  /** Ends the recording of a client that watches. */
  #endWatch: (() => void) | undefined;

  constructor(
    connection: Connection,
    endpoint: Endpoint,
    handlers: Handlers,
    log: Log,
    clock: TurnClock,
  ) {
    this.#clock = clock;
    this.#turn = new Turn(clock);
    this.#handlers = handlers;
    this.connection = connection;
    this.endpoint = endpoint;
    this.log = log.child({ function: endpoint.function.name });
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** What VERSION came to; undefined before. */
  get agreed(): AgreedCapabilities | undefined {
    return this.#agreed;
  }

  set agreed(agreed: AgreedCapabilities | undefined) {
    this.#agreed = agreed;
    this.#assembler.maxMessageBytes = agreed === undefined ? MAX_GREETING_BYTES : MAX_MESSAGE_BYTES;
  }

  /** Whether messages, or the rest of one, wait only for the others to have their turn. */
  get isBehind(): boolean {
    const isAnyWaiting = !(this.#waiting.isEmpty && this.#rest.length === 0);
    return this.#piece !== undefined || (isAnyWaiting && !this.busy);
  }

  /** Whether the next message has to wait: for an outstanding reply, or for the peer to take the ones before. */
  get busy(): boolean {
    return this.#deferred !== undefined || this.connection.congested;
  }

  /** Whether the client owes an answer to a command of the server's own. */
  get awaitsAnswers(): boolean {
    return this.#ownCommands.areUnanswered;
  }

  /** Room for the body of the reply at hand. */
  get reply(): Uint8Array {
    return this.connection.outgoing.subarray(Header.size);
  }

  /** An fd that goes with the reply at hand; it stays its owner's. */
  attachFd(fd: number): void {
    this.#replyFds.push(fd);
  }

  /** Takes what one receive gave; the fds become the session's. */
  receive(chunk: Uint8Array, fds: readonly number[]): void {
    this.#turn.begin();
    if (this.#rest.length > 0) {
      // What came before goes first.
      this.#cut(this.#takeRest(), [], (frame) => this.#keep(frame));
    }
    const rest = this.#cut(chunk, fds, (frame) => this.#take(frame), this.#mayTake);
    if (rest.length > 0) {
      // The buffer behind it is used again.
      this.#rest = rest.slice();
    }
    if (!this.#waiting.isEmpty || this.#rest.length > 0) {
      this.#wait();
    }
  }

  /** A reply among them may end what the session waits for, and have it resume in the middle of them. */
  #takeRest(): Uint8Array {
    const rest = this.#rest;
    this.#rest = NOTHING;
    return rest;
  }

  /** Cuts messages off bytes, as far as `mayGoOn` allows; gives the rest of them. */
  #cut(
    bytes: Uint8Array,
    fds: readonly number[],
    take: (frame: Frame) => void,
    mayGoOn?: () => boolean,
  ): Uint8Array {
    try {
      const taken = this.#assembler.push(bytes, fds, take, mayGoOn);
      return taken === bytes.length ? NOTHING : bytes.subarray(taken);
    } catch (error) {
      if (!(error instanceof FramingError)) {
        throw error;
      }
      this.log.warn(`${error.message}; closing the connection`);
      if (error.id !== undefined) {
        this.#replyError(error.id, error.command ?? 0, error.errno);
      }
      this.close();
      return NOTHING;
    }
  }

  get isWatching(): boolean {
    return this.#endWatch !== undefined;
  }

  /** `end` is called when the client has gone. */
  watchUntilGone(end: () => void): void {
    this.#endWatch = end;
  }

  /** Sends a command of the server's own; `done` gets the reply, or undefined when the client has gone. */
  command(command: number, body: Uint8Array, fds: readonly number[], done?: ReplyTaker): void {
    if (this.#ownCommands.areTooMany) {
      this.log.warn('the client answers nothing; closing');
      this.close();
      done?.(undefined);
      return;
    }
    const id = this.#ownCommands.begin(command, done);
    const flags = done === undefined ? HeaderFlag.noReply : HeaderFlag.command;
    const { outgoing } = this.connection;
    outgoing.set(body, Header.size);
    const size = Header.size + body.length;
    encodeHeaderInto(outgoing, 0, id, command, size, flags, 0);
    this.connection.flush(size, fds);
  }

  /** Has the rest of the message at hand, whose handler says LATER, carried out when the others have had their turn. */
  goOnLater(piece: () => void): void {
    if (this.#open) {
      this.#piece = piece;
      this.#wait();
    }
  }

  /** The answer to a request whose handler said LATER; then the messages that waited behind it. */
  complete(error: unknown, body: Uint8Array): void {
    const frame = this.#deferred;
    if (frame === undefined) {
      return;
    }
    this.#deferred = undefined;
    if (!this.#open) {
      return;
    }
    const { observers } = this.endpoint.function;
    if (!observers.isEmpty) {
      this.#observed(frame, this.#deferredBegan, error, true);
    }
    if (error !== undefined) {
      this.#failed(frame, error);
    } else {
      this.reply.set(body);
      this.#succeeded(frame, body.length);
    }
    this.resume();
  }

  /** Goes on with the message at hand; answers those that waited, as far as they need not wait on, and as many as a turn takes. */
  resume(): void {
    this.#turn.begin();
    const piece = this.#piece;
    this.#piece = undefined;
    piece?.();
    // Asked of a message only: the first is answered however late it is in the turn.
    while (this.#open && !this.busy && !this.#waiting.isEmpty && !this.#turn.isOver()) {
      this.#answer(this.#waiting.shift()!);
    }
    if (this.#open && this.#rest.length > 0 && this.#waiting.isEmpty) {
      this.#rest = this.#cut(this.#takeRest(), [], (frame) => this.#take(frame), this.#mayTake);
    }
    this.#wait();
  }

  /** While the client waits for its next turn nothing more is received; while it waits for an answer, its replies are. */
  #wait(): void {
    if (!this.#open) {
      return;
    }
    const { isBehind } = this;
    this.connection.hold(isBehind || this.#waiting.areMany);
    if (isBehind) {
      this.connection.later();
    }
  }

  /** Ends the session from this side. */
  close(): void {
    if (!this.#open) {
      return;
    }
    this.connection.close();
    this.disconnected();
  }

  /** The connection is gone: everything that the client gave is given back. */
  disconnected(): void {
    if (!this.#open) {
      return;
    }
    this.#open = false;
    this.#rest = NOTHING;
    this.#discard(this.#assembler.takePendingFds());
    for (let frame = this.#waiting.shift(); frame !== undefined; frame = this.#waiting.shift()) {
      this.#discard(frame.fds);
    }
    this.#deferred = undefined;
    this.#piece = undefined;
    this.#endWatch?.();
    if (this.agreed?.hotplug !== undefined) {
      this.endpoint.hotplug?.detach(this);
    }
    if (this.agreed !== undefined) {
      const { observers, name } = this.endpoint.function;
      observers.session(name, 'gone', { role: this.role, messages: this.messages });
    }
    if (this.agreed !== undefined && this.role === 'device') {
      this.endpoint.function.detach();
    }
    this.#ownCommands.end();
  }

  /** A reply is taken while an answer of ours is outstanding, so that requests before it are put by. */
  readonly #mayTake = (): boolean =>
    !this.#waiting.isEmpty || this.busy || !this.#turn.isOver() || !this.#open;

  #take(frame: Frame): void {
    if (frame.isReply || !this.#open || !this.#waiting.isEmpty || this.busy) {
      this.#keep(frame);
    } else {
      this.messages++;
      this.#answer(frame);
    }
  }

  /** Takes a reply, and puts a request by. */
  #keep(frame: Frame): void {
    this.messages++;
    if (!this.#open) {
      this.#discard(frame.fds);
    } else if (frame.isReply) {
      this.#takeReply(frame);
    } else {
      this.#waiting.push(frame);
    }
  }

  #discard(fds: readonly number[]): void {
    for (const fd of fds) {
      this.connection.discard(fd);
    }
  }

  #answer(frame: Frame): void {
    const { observers } = this.endpoint.function;
    const isObserved = !observers.isEmpty;
    if (isObserved) {
      this.#began = this.#clock.now();
    }
    try {
      const length = this.#handle(frame);
      if (length === LATER) {
        this.#deferred = { ...frame, body: NOTHING, fds: [] };
        this.#deferredBegan = this.#began;
      } else {
        if (isObserved) {
          this.#observed(frame, this.#began, undefined, false);
        }
        this.#succeeded(frame, length);
      }
    } catch (error) {
      if (isObserved) {
        this.#observed(frame, this.#began, error, false);
      }
      this.#failed(frame, error);
    } finally {
      this.#discard(frame.fds);
    }
  }

  /** Before the answer goes out. */
  #observed(frame: Frame, began: number, error: unknown, isLate: boolean): void {
    const { observers, name } = this.endpoint.function;
    const errno = error === undefined ? 0 : this.#errnoFrom(error);
    observers.answered(name, frame.command, this.#clock.now() - began, errno, isLate);
    if (!frame.noReply) {
      observers.answering();
    }
  }

  #handle(frame: Frame): number {
    if ((frame.flags & HeaderFlag.typeMask) !== HeaderFlag.command) {
      throw new WireError('EINVAL', `a message of type ${frame.flags & HeaderFlag.typeMask}`);
    }
    const role = this.agreed === undefined ? 'new' : this.role;
    const handler = handlerFor(this.#handlers, frame.command, role);
    return handler.handle(this, {
      command: frame.command,
      body: frame.body,
      fds: frame.fds,
      takeFds: () => frame.fds.splice(0),
    });
  }

  #takeReply(frame: Frame): void {
    if (this.#ownCommands.expects(frame)) {
      try {
        this.#ownCommands.answered(frame);
      } catch (error) {
        this.#errnoOf(frame, error);
      }
    } else if (!this.#turn.isOver()) {
      // Within a turn only: a flood of them costs no more.
      this.log.warn('a reply that nothing asked for', {
        id: frame.id,
        command: commandName(frame.command),
      });
    }
    this.#discard(frame.fds);
  }

  #succeeded(frame: Frame, length: number): void {
    const fds = this.#replyFds.splice(0);
    if (frame.noReply || !this.#open) {
      return;
    }
    const size = Header.size + length;
    encodeHeaderInto(
      this.connection.outgoing,
      0,
      frame.id,
      frame.command,
      size,
      HeaderFlag.reply,
      0,
    );
    this.connection.flush(size, fds);
  }

  #failed(frame: Frame, error: unknown): void {
    this.#replyFds.length = 0;
    const errno = this.#errnoOf(frame, error);
    if (!frame.noReply && this.#open) {
      this.#replyError(frame.id, frame.command, errno);
    }
  }

  #errnoFrom(error: unknown): number {
    return isRefusal(error) ? error.errno : Errno.EIO;
  }

  #errnoOf(frame: Frame, error: unknown): number {
    const what = commandName(frame.command);
    if (isRefusal(error)) {
      const level = error instanceof WireError ? 'debug' : 'error';
      const text = error.call === what ? error.message : `${what}: ${error.message}`;
      this.log[level](text, { errno: errnoName(error.errno) });
      return error.errno;
    }
    const stack = error instanceof Error ? error.stack : String(error);
    this.log.error(`${what}: a fault of this program, answered EIO`, { stack });
    return Errno.EIO;
  }

  #replyError(id: number, command: number, errno: number): void {
    const flags = HeaderFlag.reply | HeaderFlag.error;
    encodeHeaderInto(this.connection.outgoing, 0, id, command, Header.size, flags, errno);
    this.connection.flush(Header.size);
  }
}

/** The client is wrong, or the host has refused: too few fds, a call of the driver's. */
function isRefusal(error: unknown): error is ExplainedError & { readonly errno: number } {
  return error instanceof ExplainedError && error.errno !== undefined;
}
