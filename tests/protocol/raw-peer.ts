// A connection that says exactly what a test tells it to, for input that a well-behaved client cannot produce.

import { closeFd } from '../../protocol/unix/libc.ts';
import { encodeFrame, FrameAssembler } from '../../protocol/vfio-user/framing.ts';
import { HeaderFlag } from '../../protocol/vfio-user/messages.ts';
import { type Capabilities, encodeVersion } from '../../protocol/vfio-user/version.ts';
import type { Transport } from '../../vmm-glue/client/transport.ts';
import { UnixTransport } from '../../vmm-glue/client/unix-transport.ts';

/** What the server sent, with the body copied. */
export interface ReceivedFrame {
  readonly id: number;
  readonly command: number;
  readonly flags: number;
  readonly error: number;
  readonly body: Uint8Array;
  readonly fds: number[];
}

const WAIT_MILLISECONDS = 5_000;
const VERSION = 1;
/** More than the server takes in one message, header included. */
const LONGEST_MESSAGE = 1024 * 1024 + 8192;

export class RawPeer {
  /** True once the server has closed. */
  isClosed = false;
  #closedHere = false;
  readonly #transport: Transport;
  readonly #received: ReceivedFrame[] = [];
  #notify: () => void = () => {};

  static connect(path: string): RawPeer {
    const peer = RawPeer.connectWithoutReading(path);
    peer.startReading();
    return peer;
  }

  /** A peer that lets the server's messages pile up until `startReading()`. */
  static connectWithoutReading(path: string): RawPeer {
    return new RawPeer(UnixTransport.connect(path));
  }

  /** Over any transport; nothing is read before `startReading()`. */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  startReading(): void {
    const assembler = new FrameAssembler({ maxMessageBytes: 64 * 1024 * 1024, maxFds: 64 });
    this.#transport.start({
      chunk: (bytes, fds) =>
        assembler.push(bytes, fds, (frame) => {
          const { id, command, flags, error, body } = frame;
          this.#received.push({ id, command, flags, error, body: body.slice(), fds: frame.fds });
          this.#notify();
        }),
      ended: () => {
        this.isClosed = true;
        this.#notify();
      },
    });
  }

  /** Sends bytes as they are. */
  sendBytes(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#transport.send(bytes, fds);
  }

  /** Sends one message; `flags` 0 is a command that wants a reply. */
  send(
    command: number,
    body: Uint8Array = new Uint8Array(0),
    { id = 1, flags = HeaderFlag.command as number, fds = [] as readonly number[] } = {},
  ): void {
    this.sendBytes(encodeFrame({ id, command, flags }, body), fds);
  }

  /** The next message of the server. Rejects when it closes instead, or sends nothing for 5 s. */
  async next(): Promise<ReceivedFrame> {
    await this.#until(() => this.#received.length > 0);
    const frame = this.#received.shift();
    if (frame === undefined) {
      throw new Error(this.isClosed ? 'the server closed the connection' : 'the server is silent');
    }
    return frame;
  }

  /** The next message's body, which must be no error. */
  async nextBody(): Promise<Uint8Array> {
    const frame = await this.next();
    if (frame.error !== 0) {
      throw new Error(`the server answered errno ${frame.error}`);
    }
    return frame.body;
  }

  /** Waits until the server has closed the connection; false if it does not within 5 s. */
  async closes(): Promise<boolean> {
    await this.#until(() => this.isClosed);
    return this.isClosed;
  }

  /**
   * Makes the server end the connection after it has taken everything sent so far: zeros complete whatever message it
   * still waits for, and then read as a header that cannot be. What it answered is dropped.
   */
  async endByNonsense(): Promise<void> {
    this.sendBytes(new Uint8Array(LONGEST_MESSAGE));
    await this.closes();
    for (const frame of this.#received.splice(0)) {
      frame.fds.forEach(closeFd);
    }
  }

  /** Number of messages that arrived and were not taken. */
  get waiting(): number {
    return this.#received.length;
  }

  /** Negotiates with these capabilities. */
  async negotiate(capabilities: Capabilities = { max_msg_fds: 16 }): Promise<void> {
    this.send(VERSION, encodeVersion(0, 1, capabilities));
    await this.nextBody();
  }

  get isOpen(): boolean {
    return !this.isClosed && !this.#closedHere;
  }

  close(): void {
    this.#closedHere = true;
    this.#transport.close();
    for (const frame of this.#received.splice(0)) {
      frame.fds.forEach(closeFd);
    }
  }

  async #until(condition: () => boolean): Promise<void> {
    const deadline = Date.now() + WAIT_MILLISECONDS;
    while (!condition() && !this.isClosed && Date.now() < deadline) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, deadline - Date.now());
        this.#notify = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}
