// The real backend process with a loopback PF, for the protocol tests: starts it from dist/, connects to it, looks at
// its fds and mappings through /proc, and stops it.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { type ClientOptions, VfioUserClient } from '../../vmm-glue/client/client.ts';
import { RemoteError } from '../../vmm-glue/client/connection-errors.ts';
import type { Transport } from '../../vmm-glue/client/transport.ts';
import { UnixTransport } from '../../vmm-glue/client/unix-transport.ts';
import { RawPeer } from './raw-peer.ts';
import type { TestBackend } from './test-backend.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const READY_MILLISECONDS = 10_000;
const STOP_MILLISECONDS = 10_000;
const SETTLE_MILLISECONDS = 5_000;

export class Backend implements TestBackend {
  readonly socketPath: string;
  readonly vfSocketDirectory: string;
  /** Key=value pairs of the ready line. */
  readonly ready = new Map<string, string>();
  /** Everything on standard error so far. */
  log = '';
  readonly #directory: string;
  readonly #child: ChildProcess;
  #open: { close(): void; readonly isOpen: boolean }[] = [];
  /** Sockets of a backend that nobody is connected to. */
  #ownSockets = 0;

  /** Starts `serve --loopback` with more arguments, and waits for its ready line. */
  static async start(...more: string[]): Promise<Backend> {
    const backend = new Backend(more);
    await backend.#waitUntilReady();
    backend.#ownSockets = backend.#socketCount();
    return backend;
  }

  private constructor(more: string[]) {
    this.#directory = mkdtempSync(join(tmpdir(), 'vfu-'));
    this.socketPath = join(this.#directory, 'pf.sock');
    this.vfSocketDirectory = join(this.#directory, 'vfs');
    const named = more.map((each) => each.replace('VF_SOCKETS', this.vfSocketDirectory));
    const args = [CLI, 'serve', '--loopback', `--socket-path=${this.socketPath}`, ...named];
    this.#child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.log += chunk.toString();
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  vfSocket(index: number): string {
    return join(this.vfSocketDirectory, `vf${index}.sock`);
  }

  /** A negotiated client of the PF's socket, or of another one; closed by `disconnect()`. */
  async connect(options: ClientOptions = {}, path = this.socketPath): Promise<VfioUserClient> {
    const client = await VfioUserClient.connect(path, options);
    this.#open.push(client);
    return client;
  }

  /** A connection that sends bytes as they are; nothing is negotiated. */
  raw(path = this.socketPath): RawPeer {
    const peer = RawPeer.connect(path);
    this.#open.push(peer);
    return peer;
  }

  pfTransport(): Transport {
    return UnixTransport.connect(this.socketPath);
  }

  openPath(path: string): Transport {
    return UnixTransport.connect(path);
  }

  /** Closes all connections that were made here. */
  async disconnect(): Promise<void> {
    for (const each of this.#open.splice(0)) {
      each.close();
    }
  }

  /** Open file descriptors of the backend. */
  fdCount(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  /** The same, once every connection that was closed here is closed there as well. */
  async quietFdCount(): Promise<number> {
    this.#open = this.#open.filter((each) => each.isOpen);
    await expectSoon(() => this.#socketCount(), this.#ownSockets + this.#open.length);
    return this.fdCount();
  }

  /** Mappings of memfds and sockets' buffers in the backend; anonymous memory and code are left out. */
  sharedMappingCount(): number {
    return readFileSync(`/proc/${this.pid}/maps`, 'utf8')
      .split('\n')
      .filter((line) => line.includes('/memfd:')).length;
  }

  residentBytes(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Ends the backend by SIGTERM and gives its exit code. */
  async stop(): Promise<number | null> {
    await this.disconnect();
    if (this.isRunning) {
      const exit = once(this.#child, 'exit');
      this.#child.kill('SIGTERM');
      const killer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MILLISECONDS);
      await exit;
      clearTimeout(killer);
    }
    rmSync(this.#directory, { recursive: true, force: true });
    return this.#child.exitCode;
  }

  #socketCount(): number {
    const directory = `/proc/${this.pid}/fd`;
    const targets = readdirSync(directory).map((fd) => {
      try {
        return readlinkSync(join(directory, fd));
      } catch {
        return '';
      }
    });
    return targets.filter((target) => target.startsWith('socket:')).length;
  }

  async #waitUntilReady(): Promise<void> {
    let output = '';
    const deadline = Date.now() + READY_MILLISECONDS;
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    while (!output.includes('\n')) {
      if (!this.isRunning || Date.now() > deadline) {
        const state = this.isRunning ? 'is not ready' : `ended with ${this.#child.exitCode}`;
        this.#child.kill('SIGKILL');
        throw new Error(`backend: it ${state}; its log:\n${this.log}`);
      }
      await sleep(5);
    }
    for (const pair of output.trim().split(' ')) {
      const [key = '', value = ''] = pair.split('=', 2);
      this.ready.set(key, value);
    }
  }
}

/** Expects a call to be answered with this errno. */
export async function expectErrno(call: Promise<unknown>, code: string): Promise<void> {
  const outcome = await call.then(
    () => 'success',
    (error: unknown) => (error instanceof RemoteError ? error.code : String(error)),
  );
  expect(outcome).toBe(code);
}

/** Waits until `read` gives `wanted`, and expects it to: for what the backend does after it has answered. */
export async function expectSoon<T>(read: () => T | Promise<T>, wanted: T): Promise<void> {
  const deadline = Date.now() + SETTLE_MILLISECONDS;
  let value = await read();
  while (value !== wanted && Date.now() < deadline) {
    await sleep(5);
    value = await read();
  }
  expect(value).toBe(wanted);
}

/** Expects the backend to answer an ordinary new client. */
export async function expectServing(backend: {
  connect(): Promise<VfioUserClient>;
}): Promise<void> {
  const client = await backend.connect();
  const { numRegions } = await client.deviceInfo();
  expect(numRegions).toBeGreaterThanOrEqual(8);
  client.close();
}
