// What a protocol test needs of a backend, whatever the way to it.

import type { PhysicalDevice } from '../../backend/device/physical-device.ts';
import type { ClientOptions, VfioUserClient } from '../../vmm-glue/client/client.ts';
import type { Transport } from '../../vmm-glue/client/transport.ts';
import type { RawPeer } from './raw-peer.ts';

/** How long a test's backend waits for answers to VfPlug and to VfUnplug: on a busy machine those of a willing VMM take a while. */
export const PATIENCE_MILLISECONDS = 10_000;
/** Where a test has the backend wait in vain. */
export const SHORT_PATIENCE_MILLISECONDS = 300;

export interface BackendOptions {
  readonly totalVfs?: number;
  /** Default: PATIENCE_MILLISECONDS. */
  readonly patienceMilliseconds?: number;
  /** What it serves, where it runs in the test's own process; default: a loopback device with `totalVfs`. */
  readonly device?: PhysicalDevice;
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
