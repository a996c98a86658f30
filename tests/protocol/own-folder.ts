// `serve --loopback` in a folder of its own, for tests of what it leaves there.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BY_A_PROGRAM } from '../patience.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

export class OwnFolder {
  readonly path = mkdtempSync(join(tmpdir(), 'serve-'));
  readonly socket = this.file('pf.sock');
  /** Of the last backend. */
  backend!: ChildProcess;
  /** What backends wrote to standard error. */
  log = '';

  file(name: string): string {
    return join(this.path, name);
  }

  /** Starts a backend, and waits until it can be connected to. */
  async serve(...more: string[]): Promise<void> {
    const args = [CLI, 'serve', '--loopback', `--socket-path=${this.socket}`, ...more];
    this.backend = spawn(process.execPath, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, FORCE_COLOR: '1' },
    });
    this.backend.stderr!.on('data', (chunk: Buffer) => {
      this.log += chunk.toString();
    });
    await once(this.backend.stdout!, 'data');
  }

  /** Gives code and signal of its end. */
  async end(signal: NodeJS.Signals): Promise<unknown[]> {
    const exit = once(this.backend, 'exit');
    this.backend.kill(signal);
    return exit;
  }

  /** Runs a command in the folder, to its end. */
  run(...args: string[]) {
    return spawnSync(process.execPath, [CLI, ...args], {
      encoding: 'utf8',
      cwd: this.path,
      timeout: BY_A_PROGRAM.timeout,
    });
  }

  remove(): void {
    this.backend?.kill('SIGKILL');
    rmSync(this.path, { recursive: true, force: true });
  }
}
