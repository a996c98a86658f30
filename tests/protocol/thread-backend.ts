// The backend's device thread, as built, in the test's own process: real unix sockets, over whatever device a test made.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PhysicalDevice } from '../../backend/device/physical-device.ts';
import type { DeviceThread } from '../../backend/thread/device-thread.ts';
import { logInto } from '../../protocol/log.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { type ClientOptions, VfioUserClient } from '../../vmm-glue/client/client.ts';
import type { Transport } from '../../vmm-glue/client/transport.ts';
import { UnixTransport } from '../../vmm-glue/client/unix-transport.ts';
import { RawPeer } from './raw-peer.ts';
import { SHORT_PATIENCE_MILLISECONDS, type TestBackend } from './test-backend.ts';

/** Its worker is a file of its own, which has to be JavaScript. */
const BUILT = new URL('../../dist/backend/thread/device-thread.js', import.meta.url);

export class ThreadBackend implements TestBackend {
  log = '';
  readonly #folder = mkdtempSync(join(tmpdir(), 'vfu-'));
  readonly #path = join(this.#folder, 'pf.sock');
  readonly #thread: DeviceThread;
  readonly #open: { close(): void }[] = [];

  static async start(device: PhysicalDevice): Promise<ThreadBackend> {
    const built: { DeviceThread: typeof DeviceThread } = await import(BUILT.href);
    const backend = new ThreadBackend(built.DeviceThread, device);
    await backend.#thread.ready;
    return backend;
  }

  private constructor(Thread: typeof DeviceThread, device: PhysicalDevice) {
    const log = logInto((level, message) => {
      this.log += `${level}: ${message}\n`;
    });
    this.#thread = new Thread({
      kind: 'loopback',
      device,
      clock: processClock,
      log,
      theirLog: log,
      socket: { path: this.#path },
      vfSockets: undefined,
      spinMicroseconds: 0,
      plugMilliseconds: SHORT_PATIENCE_MILLISECONDS,
      unplugMilliseconds: SHORT_PATIENCE_MILLISECONDS,
      logLevel: 'debug',
    });
  }

  async connect(options: ClientOptions = {}): Promise<VfioUserClient> {
    const client = await VfioUserClient.connect(this.#path, options);
    this.#open.push(client);
    return client;
  }

  raw(): RawPeer {
    const peer = RawPeer.connect(this.#path);
    this.#open.push(peer);
    return peer;
  }

  pfTransport(): Transport {
    return UnixTransport.connect(this.#path);
  }

  openPath(path: string): Transport {
    return UnixTransport.connect(path);
  }

  async disconnect(): Promise<void> {
    for (const each of this.#open.splice(0)) {
      each.close();
    }
  }

  async stop(): Promise<void> {
    await this.disconnect();
    this.#thread.stop();
    await this.#thread.ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
