// The backend's device and sessions inside the test's own process, reached over loopback transports: no socket, no file
// descriptors, no second process, and the same order of events every time.

import {
  HostError,
  type HostLink,
  type PhysicalDevice,
  perform,
} from '../../backend/device/physical-device.ts';
import type { Endpoint } from '../../backend/hotplug/endpoint.ts';
import { SriovDevice } from '../../backend/hotplug/sriov-device.ts';
import type { Connection } from '../../backend/server/connection.ts';
import { HANDLERS } from '../../backend/server/handlers.ts';
import { MAX_DATA_BYTES } from '../../backend/server/limits.ts';
import { Session } from '../../backend/server/session.ts';
import { logInto } from '../../protocol/log.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { type ClientOptions, VfioUserClient } from '../../vmm-glue/client/client.ts';
import { type LoopbackTransport, loopbackPair } from '../../vmm-glue/client/loopback-transport.ts';
import type { Transport } from '../../vmm-glue/client/transport.ts';
import { type LoopbackHandle, loopbackDevice, openLoopbackFunction } from '../fakes/loopback.ts';
import { RawPeer } from './raw-peer.ts';
import { type BackendOptions, PATIENCE_MILLISECONDS, type TestBackend } from './test-backend.ts';

const VF_BAR_SIZE = 16384;
const RETRY_MILLISECONDS = 300;

/** One buffer for all connections, as on the device thread. */
const outgoing = new Uint8Array(MAX_DATA_BYTES + 4096);

class InProcessConnection implements Connection {
  readonly carriesFds = false;
  readonly outgoing = outgoing;
  /** The peer takes everything at once. */
  readonly congested = false;
  session!: Session;
  readonly #held: Uint8Array[] = [];
  #isHeld = false;
  readonly #transport: LoopbackTransport;
  readonly #closed: () => void;

  constructor(transport: LoopbackTransport, closed: () => void) {
    this.#transport = transport;
    this.#closed = closed;
  }

  flush(length: number): void {
    this.#transport.send(outgoing.subarray(0, length));
  }

  later(): void {
    setImmediate(() => this.session.resume());
  }

  hold(held: boolean): void {
    this.#isHeld = held;
    if (!held) {
      queueMicrotask(() => this.#release());
    }
  }

  /** No fd ever comes. */
  discard(): void {}

  /** What arrived on the transport. */
  receive(bytes: Uint8Array): void {
    if (this.#isHeld || this.#held.length > 0) {
      this.#held.push(bytes.slice());
    } else {
      this.session.receive(bytes, []);
    }
  }

  close(): void {
    this.#transport.close();
    this.#closed();
  }

  #release(): void {
    while (!this.#isHeld) {
      const next = this.#held.shift();
      if (next === undefined) {
        return;
      }
      this.session.receive(next, []);
    }
  }
}

export class InProcessBackend implements TestBackend {
  log = '';
  readonly #device: SriovDevice;
  readonly #sessions = new Set<Session>();
  readonly #open: { close(): void }[] = [];

  constructor({ totalVfs = 7, device, patienceMilliseconds }: BackendOptions) {
    const patience = patienceMilliseconds ?? PATIENCE_MILLISECONDS;
    const hardware =
      device ?? loopbackDevice({ totalVfs, vfBarSize: VF_BAR_SIZE, enableMilliseconds: 0 });
    this.#device = new SriovDevice({
      description: hardware.description,
      pf: hardware.pf,
      limits: {
        plugMilliseconds: patience,
        unplugMilliseconds: patience,
        retryMilliseconds: RETRY_MILLISECONDS,
      },
      host: hostLink(hardware),
      log: logInto((level, message) => {
        this.log += `${level}: ${message}\n`;
      }),
      openFunction(handle, generation, wires) {
        return openLoopbackFunction(handle as LoopbackHandle, generation, wires);
      },
      clock: processClock,
      connectVf: () => {
        throw new Error('in-process backend: a VF is reached by its path');
      },
      vfSocketPath: (vfIndex) => `vf${vfIndex}`,
      sessions: () => [...this.#sessions],
    });
  }

  pfTransport(): Transport {
    return this.#serve(this.#device.pfEndpoint);
  }

  /** A transport to the VF that a VfPlug names by `vf0`, `vf1`, ... */
  openPath(path: string): Transport {
    return this.#serve(this.#device.vfEndpoint(Number(path.slice(2)), true));
  }

  async connect(options: ClientOptions = {}): Promise<VfioUserClient> {
    const client = await VfioUserClient.over(this.pfTransport(), options);
    this.#open.push(client);
    return client;
  }

  raw(): RawPeer {
    const peer = new RawPeer(this.pfTransport());
    peer.startReading();
    this.#open.push(peer);
    return peer;
  }

  async disconnect(): Promise<void> {
    for (const each of this.#open.splice(0)) {
      each.close();
    }
    // The other ends hear of it in a microtask.
    await new Promise((resolve) => setImmediate(resolve));
  }

  async stop(): Promise<void> {
    await this.disconnect();
    await new Promise<void>((resolve) => this.#device.shutDown(resolve));
  }

  #serve(endpoint: Endpoint): LoopbackTransport {
    const [near, far] = loopbackPair();
    const connection = new InProcessConnection(far, () => this.#sessions.delete(session));
    const session: Session = new Session(
      connection,
      endpoint,
      HANDLERS,
      logInto((level, message) => {
        this.log += `${level}: ${message}\n`;
      }),
      // Turns that no time ends, so that no test waits for the next.
      { now: () => 0, turnStart: () => 0 },
    );
    connection.session = session;
    this.#sessions.add(session);
    far.start({
      chunk: (bytes) => connection.receive(bytes),
      ended: () => {
        this.#sessions.delete(session);
        session.disconnected();
      },
    });
    return near;
  }
}

/** The main thread's part, in later microtasks of this one. */
function hostLink(hardware: PhysicalDevice): HostLink {
  return {
    request(name, args, done) {
      const finish = (reply: unknown): void => done(undefined, reply as never);
      const fail = (error: unknown): void =>
        done(
          error instanceof HostError ? error : new HostError(name, 5, '', String(error)),
          undefined,
        );
      perform(hardware, name, args).then(finish, fail);
    },
  };
}
