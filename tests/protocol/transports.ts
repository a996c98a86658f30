// The two ways to a backend that the protocol tests run over, where a test needs nothing that only one of them has.

import type { ClientOptions, VfioUserClient } from '../../vmm-glue/client/client.ts';
import type { Transport } from '../../vmm-glue/client/transport.ts';
import { UnixTransport } from '../../vmm-glue/client/unix-transport.ts';
import { Backend } from './backend.ts';
import { InProcessBackend } from './in-process-backend.ts';
import type { RawPeer } from './raw-peer.ts';

export interface BackendOptions {
  readonly totalVfs?: number;
}

/** What a test needs of a backend, whatever the way to it. */
export interface TestBackend {
  /** Everything that it logged. */
  readonly log: string;
  connect(options?: ClientOptions): Promise<VfioUserClient>;
  raw(): RawPeer;
  /** A new connection to the PF, not negotiated. */
  pfTransport(): Transport;
  /** One to a VF, by the path that its VfPlug names. */
  openPath(path: string): Transport;
  /** Closes all connections made by `connect` and `raw`. */
  disconnect(): Promise<void>;
  stop(): Promise<unknown>;
}

class ProcessBackend implements TestBackend {
  readonly #backend: Backend;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  get log(): string {
    return this.#backend.log;
  }

  connect(options?: ClientOptions): Promise<VfioUserClient> {
    return this.#backend.connect(options);
  }

  raw(): RawPeer {
    return this.#backend.raw();
  }

  pfTransport(): Transport {
    return UnixTransport.connect(this.#backend.socketPath);
  }

  openPath(path: string): Transport {
    return UnixTransport.connect(path);
  }

  disconnect(): Promise<void> {
    return this.#backend.disconnect();
  }

  stop(): Promise<unknown> {
    return this.#backend.stop();
  }
}

/** For `describe.each`. */
export const TRANSPORTS = [
  {
    way: 'a unix socket',
    start: async ({ totalVfs = 7 }: BackendOptions = {}): Promise<TestBackend> =>
      new ProcessBackend(await Backend.start(`--total-vfs=${totalVfs}`)),
  },
  {
    way: 'an in-process pair',
    start: async (options: BackendOptions = {}): Promise<TestBackend> =>
      new InProcessBackend(options),
  },
] as const;
