// One vfio-user connection: reads messages, answers each in order, and is the only place where errors become replies.
// Pure of sockets: bytes come in through `receive`, replies go out through the Connection.

import type { Clock } from '../../protocol/clock.ts';
import { Errno, errnoName, WireError } from '../../protocol/errno.ts';
import { HotplugCommand } from '../../protocol/hotplug/codec.ts';
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
import { HostError } from '../device/physical-device.ts';
import type { Endpoint, PeerSession, ReplyTaker, Role } from '../hotplug/endpoint.ts';
import type { Connection } from './connection.ts';

/** A message being answered. */
export interface Request {
  readonly command: number;
  readonly body: Uint8Array;
  /** The fds that came with it. */
  readonly fds: readonly number[];
  /** Hands them over; what nobody takes is closed. */
  takeFds(): number[];
}

/** What a command does; whatever `handle` throws becomes an error reply. */
export interface Handler {
  /** Whose connections may ask this; `new`: before VERSION. */
  readonly roles: readonly (Role | 'new')[];
  /** Gives the length of the reply's body, which it wrote into `session.reply`, or LATER. */
  handle(session: Session, request: Request): number;
}

export type Handlers = Readonly<Record<number, Handler>>;

/** Instead of a length: the reply comes later, through `Session.complete`. */
export const LATER = -1;

/** A message with its header and data: as large as this, or the session ends. */
export const MAX_DATA_BYTES = 1 << 20;
const MAX_MESSAGE_BYTES = MAX_DATA_BYTES + 4096;
/** Before a client has said who it is. */
const MAX_GREETING_BYTES = 64 * 1024;
/** Bytes of messages that may wait behind one that cannot be answered yet, before no more are received. */
const MAX_WAITING_BYTES = 256 * 1024;
/** What an fd that waits counts: there are fewer of them than of bytes. */
const WAITING_BYTES_PER_FD = 4096;
/** Commands of our own that a client may leave unanswered before it is given up: each needs an id of its own. */
const MAX_OUTSTANDING = 0xffff;
/** What is done for one client in one turn of the loop, whatever it asks for, before the others have theirs. */
const TURN_MESSAGES = 32;
const TURN_MILLISECONDS = 0.5;
/** Fds in one message: more than we announce, because Cloud Hypervisor sends 16 whatever the server says. */
export const MAX_FDS = 64;

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
  readonly #clock: Pick<Clock, 'now'>;
  #agreed: AgreedCapabilities | undefined;
  readonly #assembler = new FrameAssembler({
    maxMessageBytes: MAX_GREETING_BYTES,
    maxFds: MAX_FDS,
  });
  readonly #waiting: Frame[] = [];
  #waitingBytes = 0;
  readonly #replies = new Map<number, { command: number; done: ReplyTaker }>();
  #deferred: Frame | undefined;
  /** When the message at hand came, and the deferred one; known where somebody observes. */
  #began = 0;
  #deferredBegan = 0;
  #turnMessages = 0;
  #turnBegan = 0;
  #nextId = 1;
  #open = true;

  /** `clock`: what a turn's length is measured by. */
  constructor(
    connection: Connection,
    endpoint: Endpoint,
    handlers: Handlers,
    log: Log,
    clock: Pick<Clock, 'now'> = performance,
  ) {
    this.#clock = clock;
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

  /** Whether messages wait only for the others to have their turn. */
  get isBehind(): boolean {
    return this.#waiting.length > 0 && !this.busy;
  }

  /** Whether the next message has to wait: for an outstanding reply, or for the peer to take the ones before. */
  get busy(): boolean {
    return this.#deferred !== undefined || this.connection.congested;
  }

  /** Room for the body of the reply at hand. */
  get reply(): Uint8Array {
    return this.connection.outgoing.subarray(Header.size);
  }

  /** Takes what one receive gave; the fds become the session's. */
  receive(chunk: Uint8Array, fds: readonly number[]): void {
    this.#turnMessages = 0;
    try {
      this.#assembler.push(chunk, fds, (frame) => this.#take(frame));
      if (this.#waiting.length > 0) {
        this.#wait();
      }
    } catch (error) {
      if (!(error instanceof FramingError)) {
        throw error;
      }
      this.log.warn(`${error.message}; closing the connection`);
      if (error.id !== undefined) {
        this.#replyError(error.id, error.command ?? 0, error.errno);
      }
      this.close();
    }
  }

  /** Sends a command of the server's own; `done` gets the reply, or undefined when the client has gone. */
  command(command: number, body: Uint8Array, fds: readonly number[], done?: ReplyTaker): void {
    if (this.#replies.size === MAX_OUTSTANDING) {
      this.log.warn('the client answers nothing; closing');
      this.close();
      return;
    }
    while (this.#replies.has(this.#nextId)) {
      this.#nextId = idAfter(this.#nextId);
    }
    const id = this.#nextId;
    this.#nextId = idAfter(id);
    if (done !== undefined) {
      this.#replies.set(id, { command, done });
    }
    const flags = done === undefined ? HeaderFlag.noReply : HeaderFlag.command;
    const { outgoing } = this.connection;
    outgoing.set(body, Header.size);
    const size = Header.size + body.length;
    encodeHeaderInto(outgoing, 0, id, command, size, flags, 0);
    this.connection.flush(size, fds);
  }

  /** The answer to a request whose handler said LATER; then the messages that waited behind it. */
  complete(error: Error | undefined, body: Uint8Array): void {
    const frame = this.#deferred;
    if (frame === undefined) {
      return;
    }
    this.#deferred = undefined;
    if (!this.#open) {
      return;
    }
    if (error !== undefined) {
      this.#failed(frame, error);
    } else {
      this.reply.set(body);
      this.#succeeded(frame, body.length);
    }
    const { observers } = this.endpoint.function;
    if (!observers.isEmpty) {
      const errno = error === undefined ? 0 : this.#errnoFrom(error);
      observers.answered(
        this.endpoint.function.name,
        frame.command,
        performance.now() - this.#deferredBegan,
        errno,
        true,
      );
    }
    this.resume();
  }

  /** Answers the messages that waited, as far as they need not wait on, and as many as a turn takes. */
  resume(): void {
    this.#turnMessages = 0;
    while (this.#open && !this.busy && !this.#isTurnOver()) {
      const next = this.#waiting.shift();
      if (next === undefined) {
        break;
      }
      this.#waitingBytes -= waitingBytesOf(next);
      this.#answer(next);
    }
    this.#wait();
  }

  /** While the client waits for its next turn nothing more is received; while it waits for an answer, its replies are. */
  #wait(): void {
    if (!this.#open) {
      return;
    }
    const { isBehind } = this;
    this.connection.hold(isBehind || this.#waitingBytes > MAX_WAITING_BYTES);
    if (isBehind) {
      this.connection.later();
    }
  }

  /** Looks at the clock only where there is more than one message: a guest's next one waits for the answer. */
  #isTurnOver(): boolean {
    this.#turnMessages++;
    if (this.#turnMessages === 1) {
      return false;
    }
    const now = this.#clock.now();
    if (this.#turnMessages === 2) {
      this.#turnBegan = now;
    }
    return this.#turnMessages > TURN_MESSAGES || now - this.#turnBegan > TURN_MILLISECONDS;
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
    for (const fd of this.#assembler.takePendingFds()) {
      this.connection.discard(fd);
    }
    for (const frame of this.#waiting.splice(0)) {
      for (const fd of frame.fds) {
        this.connection.discard(fd);
      }
    }
    this.#deferred = undefined;
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
    const replies = [...this.#replies.values()];
    this.#replies.clear();
    for (const { done } of replies) {
      done(undefined);
    }
  }

  #take(frame: Frame): void {
    this.messages++;
    if (!this.#open) {
      for (const fd of frame.fds) {
        this.connection.discard(fd);
      }
    } else if (frame.isReply) {
      this.#takeReply(frame);
    } else if (this.#waiting.length > 0 || this.busy || this.#isTurnOver()) {
      this.#keep(frame);
    } else {
      this.#answer(frame);
    }
  }

  #keep(frame: Frame): void {
    this.#waiting.push({ ...frame, body: frame.body.slice() });
    this.#waitingBytes += waitingBytesOf(frame);
  }

  #answer(frame: Frame): void {
    const { observers } = this.endpoint.function;
    const isObserved = !observers.isEmpty;
    if (isObserved) {
      this.#began = performance.now();
    }
    try {
      const length = this.#handle(frame);
      if (length === LATER) {
        this.#deferred = { ...frame, body: NOTHING, fds: [] };
        this.#deferredBegan = this.#began;
      } else {
        this.#succeeded(frame, length);
        if (isObserved) {
          this.#observed(frame, 0);
        }
      }
    } catch (error) {
      this.#failed(frame, error);
      if (isObserved) {
        this.#observed(frame, this.#errnoFrom(error));
      }
    } finally {
      for (const fd of frame.fds) {
        this.connection.discard(fd);
      }
    }
  }

  #observed(frame: Frame, errno: number): void {
    const { observers, name } = this.endpoint.function;
    const milliseconds = performance.now() - this.#began;
    observers.answered(name, frame.command, milliseconds, errno, false);
  }

  #handle(frame: Frame): number {
    if ((frame.flags & HeaderFlag.typeMask) !== HeaderFlag.command) {
      throw new WireError('EINVAL', `a message of type ${frame.flags & HeaderFlag.typeMask}`);
    }
    const handler = this.#handlers[frame.command];
    if (handler === undefined) {
      throw new WireError('ENOSYS', `${commandName(frame.command)} is not known here`);
    }
    this.#permit(frame.command, handler.roles);
    return handler.handle(this, {
      command: frame.command,
      body: frame.body,
      fds: frame.fds,
      takeFds: () => frame.fds.splice(0),
    });
  }

  #permit(command: number, roles: readonly (Role | 'new')[]): void {
    const role = this.agreed === undefined ? 'new' : this.role;
    if (roles.includes(role)) {
      return;
    }
    if (role === 'new') {
      throw new WireError('EINVAL', `${commandName(command)} came before VERSION`);
    }
    if (command === HotplugCommand.getStatus) {
      throw new WireError('EPERM', 'the status was asked for, but sriov_status not negotiated');
    }
    throw new WireError('EPERM', `${commandName(command)} on a connection for the role ${role}`);
  }

  #takeReply(frame: Frame): void {
    const waiting = this.#replies.get(frame.id);
    if (waiting === undefined || waiting.command !== frame.command) {
      // A flood of them costs no more than a turn.
      if (!this.#isTurnOver()) {
        this.log.warn('a reply that nothing asked for', {
          id: frame.id,
          command: commandName(frame.command),
        });
      }
    } else {
      let isAnswer = true;
      try {
        isAnswer = waiting.done(frame);
      } catch (error) {
        this.#errnoOf(frame, error);
      }
      if (isAnswer) {
        this.#replies.delete(frame.id);
      }
    }
    for (const fd of frame.fds) {
      this.connection.discard(fd);
    }
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

  /** Fds that go with the reply at hand; they stay their owner's. */
  readonly #replyFds: number[] = [];

  attachFd(fd: number): void {
    this.#replyFds.push(fd);
  }

  #failed(frame: Frame, error: unknown): void {
    this.#replyFds.length = 0;
    const errno = this.#errnoOf(frame, error);
    if (!frame.noReply && this.#open) {
      this.#replyError(frame.id, frame.command, errno);
    }
  }

  #errnoFrom(error: unknown): number {
    return error instanceof WireError || error instanceof HostError ? error.errno : Errno.EIO;
  }

  #errnoOf(frame: Frame, error: unknown): number {
    const what = commandName(frame.command);
    if (error instanceof WireError || error instanceof HostError) {
      const level = error instanceof HostError ? 'error' : 'debug';
      this.log[level](`${what}: ${error.message}`, { errno: errnoName(error.errno) });
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

function waitingBytesOf({ body, fds }: Frame): number {
  return Header.size + body.length + fds.length * WAITING_BYTES_PER_FD;
}

function idAfter(id: number): number {
  return id === 0xffff ? 1 : id + 1;
}
