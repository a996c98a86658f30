// The other end of a client in unit tests: sees frames, answers what a test tells it to, on a loopback transport.

import { encodeFrame, FrameAssembler } from '../../../../protocol/vfio-user/framing.ts';
import { HeaderFlag } from '../../../../protocol/vfio-user/messages.ts';
import {
  type Capabilities,
  encodeVersion,
  parseVersion,
} from '../../../../protocol/vfio-user/version.ts';
import { type ClientOptions, VfioUserClient } from '../../../../vmm-glue/client/client.ts';
import {
  type LoopbackTransport,
  loopbackPair,
} from '../../../../vmm-glue/client/loopback-transport.ts';

const VERSION = 1;

/** One message of the client, body copied. */
export interface SeenFrame {
  readonly id: number;
  readonly command: number;
  readonly flags: number;
  readonly error: number;
  readonly body: Uint8Array;
}

export class FakeServer {
  /** Everything the client sent after VERSION. */
  readonly seen: SeenFrame[] = [];
  /** Answers commands; by default nothing is answered. */
  onCommand: (frame: SeenFrame) => void = () => {};
  readonly transport: LoopbackTransport;
  #capabilities: Capabilities;

  /** A server that grants `capabilities`, and a client connected to it. */
  static async withClient(
    capabilities: Capabilities = {},
    options: ClientOptions = {},
  ): Promise<{ server: FakeServer; client: VfioUserClient }> {
    const [near, far] = loopbackPair();
    const server = new FakeServer(far, capabilities);
    const client = await VfioUserClient.over(near, options);
    return { server, client };
  }

  constructor(transport: LoopbackTransport, capabilities: Capabilities) {
    this.transport = transport;
    this.#capabilities = capabilities;
    const assembler = new FrameAssembler({ maxMessageBytes: 1 << 24, maxFds: 0 });
    transport.start({
      chunk: (bytes, fds) =>
        assembler.push(bytes, fds, (frame) => {
          const { id, command, flags, error } = frame;
          this.#take({ id, command, flags, error, body: frame.body.slice() });
        }),
      ended: () => {},
    });
  }

  reply(
    to: { id: number; command: number },
    body: Uint8Array = new Uint8Array(0),
    error = 0,
  ): void {
    const { id, command } = to;
    this.transport.send(encodeFrame({ id, command, flags: HeaderFlag.reply, error }, body));
  }

  /** A command of the server's own. */
  command(command: number, body: Uint8Array, id = 1, flags: number = HeaderFlag.command): void {
    this.transport.send(encodeFrame({ id, command, flags }, body));
  }

  #take(frame: SeenFrame): void {
    if (frame.command === VERSION) {
      const { minor } = parseVersion(frame.body);
      this.reply(frame, encodeVersion(0, minor, this.#capabilities));
      return;
    }
    this.seen.push(frame);
    if ((frame.flags & HeaderFlag.typeMask) === HeaderFlag.command) {
      this.onCommand(frame);
    }
  }
}
