// What a protocol test needs of a backend, whatever the way to it.

import type { ClientOptions, VfioUserClient } from '../../vmm-glue/client/client.ts';
import type { Transport } from '../../vmm-glue/client/transport.ts';
import type { RawPeer } from './raw-peer.ts';

export interface BackendOptions {
  readonly totalVfs?: number;
}

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
