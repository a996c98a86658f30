// Cuts a byte stream with attached fds into vfio-user messages, and puts headers before bodies. Pure: bytes and fd
// numbers in, frames out. Promises: no byte is copied unless a message arrives in pieces, no memory is kept while
// idle, and every fd is either in exactly one delivered frame or still in takePendingFds().
import { Errno, type ErrnoName, WireError } from '../errno.ts';
import { readU32, writeU32 } from '../record.ts';
import { commandName } from './commands.ts';
import { Header, HeaderFlag } from './messages.ts';

/** One received message. */
export interface Frame {
  id: number;
  command: number;
  /** The header's flags as received. */
  flags: number;
  isReply: boolean;
  noReply: boolean;
  /** Errno of an error reply, 0 = none. An error reply that names no errno reads as EIO. */
  error: number;
  /** Valid until `deliver` returns. */
  body: Uint8Array;
  /** Owned by the receiver of the frame, who closes what it does not use. */
  fds: number[];
}

/** The stream cannot be followed any more: answer, then close. `id` and `command` are of the offending header. */
export class FramingError extends WireError {
  override readonly name = 'FramingError';
  readonly id: number | undefined;
  readonly command: number | undefined;

  constructor(code: ErrnoName, message: string, id?: number, command?: number) {
    super(code, message);
    this.id = id;
    this.command = command;
  }
}

/** Writes a header at byte `at` without allocating; `size` is that of the whole message; the caller has checked room. */
export function encodeHeaderInto(
  target: Uint8Array,
  at: number,
  id: number,
  command: number,
  size: number,
  flags: number,
  error: number,
): void {
  target[at] = id;
  target[at + 1] = id >>> 8;
  target[at + 2] = command;
  target[at + 3] = command >>> 8;
  writeU32(target, at + 4, size);
  writeU32(target, at + 8, flags);
  writeU32(target, at + 12, error);
}

/** A whole message in new bytes; a non-zero `error` sets the Error flag by itself. */
export function encodeFrame(
  head: { id: number; command: number; flags: number; error?: number },
  body: Uint8Array = nothing,
): Uint8Array {
  const bytes = new Uint8Array(Header.size + body.length);
  const error = head.error ?? 0;
  const flags = error === 0 ? head.flags : head.flags | HeaderFlag.error;
  encodeHeaderInto(bytes, 0, head.id, head.command, bytes.length, flags, error);
  bytes.set(body, Header.size);
  return bytes;
}

const nothing = new Uint8Array(0);
const always = (): boolean => true;

/** The receiving side of one connection. */
export class FrameAssembler {
  /** Header included. May be changed between messages. */
  maxMessageBytes: number;
  readonly #maxFds: number;
  /** Start of a message whose end has not arrived: #have bytes of it; as long as the message once its header is known. */
  #partial: Uint8Array = nothing;
  #have = 0;
  /** Fds that came with earlier pieces of the message in #partial. */
  #pendingFds: number[] = [];
  /** Fds that came with the chunk being cut. */
  #arrivedFds: number[] = [];
  #broken: FramingError | undefined;

  /** @param options maxMessageBytes counts the header; maxFds is per message. */
  constructor(options: { maxMessageBytes: number; maxFds: number }) {
    this.maxMessageBytes = options.maxMessageBytes;
    this.#maxFds = options.maxFds;
  }

  /** Bytes kept of a message that has not arrived in full. */
  get pendingBytes(): number {
    return this.#have;
  }

  /** Hands over the fds of messages that were never delivered, for closing. */
  takePendingFds(): number[] {
    const fds = [...this.#pendingFds, ...this.#arrivedFds];
    this.#pendingFds = [];
    this.#arrivedFds = [];
    return fds;
  }

  /**
   * Takes what one receive gave and delivers every message that is complete now, in order. The fds belong to the
   * message that holds the chunk's last byte: Linux ends a receive after the buffer that carried fds.
   * `deliver` must not throw: the rest of the chunk would be lost.
   * `mayGoOn` is asked before each message but one that began in an earlier chunk. Gives how many bytes were taken: where
   * that is not all, the rest is to be pushed next, without the fds, which are here already.
   * @throws FramingError when a size or the number of fds is out of bounds, and from then on every time.
   */
  push(
    chunk: Uint8Array,
    fds: readonly number[],
    deliver: (frame: Frame) => void,
    mayGoOn: () => boolean = always,
  ): number {
    if (fds.length > 0) {
      this.#arrivedFds.push(...fds);
    }
    if (this.#broken !== undefined) {
      throw this.#broken;
    }
    let at = 0;
    if (this.#have > 0) {
      at = this.#complete(chunk);
      if (at < 0) {
        this.#keepFds();
        return chunk.length;
      }
      const message = this.#partial;
      this.#partial = nothing;
      this.#have = 0;
      this.#deliver(message, 0, message.length, at === chunk.length, deliver);
    }
    while (chunk.length - at >= Header.size) {
      const size = this.#sizeAt(chunk, at);
      const end = at + size;
      if (end > chunk.length) {
        break;
      }
      if (!mayGoOn()) {
        return at;
      }
      this.#deliver(chunk, at, end, end === chunk.length, deliver);
      at = end;
    }
    if (at < chunk.length) {
      this.#keepTail(chunk, at);
    }
    this.#keepFds();
    return chunk.length;
  }

  /** Adds chunk bytes to the kept message; gives the chunk offset behind it, or -1 while it is incomplete. */
  #complete(chunk: Uint8Array): number {
    let at = 0;
    if (this.#have < Header.size) {
      at = Math.min(Header.size - this.#have, chunk.length);
      this.#partial.set(chunk.subarray(0, at), this.#have);
      this.#have += at;
      if (this.#have < Header.size) {
        return -1;
      }
      const size = this.#sizeAt(this.#partial, 0);
      if (size > Header.size) {
        const whole = new Uint8Array(size);
        whole.set(this.#partial);
        this.#partial = whole;
      }
    }
    const take = Math.min(this.#partial.length - this.#have, chunk.length - at);
    this.#partial.set(chunk.subarray(at, at + take), this.#have);
    this.#have += take;
    return this.#have === this.#partial.length ? at + take : -1;
  }

  #keepTail(chunk: Uint8Array, at: number): void {
    const tail = chunk.length - at;
    // With a whole header sizeAt has already let this message pass.
    this.#partial = new Uint8Array(tail < Header.size ? Header.size : readU32(chunk, at + 4));
    this.#partial.set(chunk.subarray(at));
    this.#have = tail;
  }

  #keepFds(): void {
    if (this.#arrivedFds.length === 0) {
      return;
    }
    this.#pendingFds.push(...this.#arrivedFds);
    this.#arrivedFds = [];
    const known = this.#have >= Header.size;
    if (this.#pendingFds.length > this.#maxFds) {
      this.#tooManyFds(this.#pendingFds.length, known ? this.#partial : undefined, 0);
    }
  }

  #sizeAt(bytes: Uint8Array, at: number): number {
    const size = readU32(bytes, at + 4);
    if (size >= Header.size && size <= this.maxMessageBytes) {
      return size;
    }
    const { id, command } = Header.decode(bytes, at);
    const limits = `it must be ${Header.size}..${this.maxMessageBytes} bytes`;
    throw this.#break(
      new FramingError(
        size < Header.size ? 'EINVAL' : 'EMSGSIZE',
        `${commandName(command)} message ${id} says it is ${size} bytes long: ${limits}`,
        id,
        command,
      ),
    );
  }

  #deliver(
    bytes: Uint8Array,
    start: number,
    end: number,
    holdsLastByte: boolean,
    deliver: (frame: Frame) => void,
  ): void {
    const count = this.#pendingFds.length + (holdsLastByte ? this.#arrivedFds.length : 0);
    if (count > this.#maxFds) {
      this.#tooManyFds(count, bytes, start);
    }
    const fds = this.#pendingFds;
    this.#pendingFds = [];
    if (holdsLastByte && this.#arrivedFds.length > 0) {
      fds.push(...this.#arrivedFds);
      this.#arrivedFds = [];
    }
    const flags = readU32(bytes, start + 8);
    const error = (flags & HeaderFlag.error) === 0 ? 0 : readU32(bytes, start + 12) || Errno.EIO;
    deliver({
      id: bytes[start]! | (bytes[start + 1]! << 8),
      command: bytes[start + 2]! | (bytes[start + 3]! << 8),
      flags,
      isReply: (flags & HeaderFlag.typeMask) === HeaderFlag.reply,
      noReply: (flags & HeaderFlag.noReply) !== 0,
      error,
      body: bytes.subarray(start + Header.size, end),
      fds,
    });
  }

  #tooManyFds(count: number, header: Uint8Array | undefined, at: number): never {
    const known = header === undefined ? undefined : Header.decode(header, at);
    const what =
      known === undefined ? 'message' : `${commandName(known.command)} message ${known.id}`;
    throw this.#break(
      new FramingError(
        'EINVAL',
        `${what} carries ${count} fds: at most ${this.#maxFds} are taken`,
        known?.id,
        known?.command,
      ),
    );
  }

  #break(error: FramingError): FramingError {
    this.#broken = error;
    this.#partial = nothing;
    this.#have = 0;
    return error;
  }
}
