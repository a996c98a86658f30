// `status` as a person meets it: the tree of a backend that runs, and one line where nobody gives an answer.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DeviceStatus } from '../../protocol/hotplug/status.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'status-'));
  path = join(folder, 'pf.sock');
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

function status(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const command = [CLI, 'status', ...args];
    execFile(process.execPath, command, { timeout: 10_000 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

function listen(server: Server): Promise<void> {
  return new Promise((resolve) => server.listen(path, resolve));
}

describe('status', () => {
  it('shows a backend by its socket, for people and for programs', async () => {
    const serve = [CLI, 'serve', '--loopback', `--socket-path=${path}`];
    const backend = spawn(process.execPath, serve, { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      await once(backend.stdout, 'data');
      const tree = await status(`--socket-path=${path}`);
      expect(tree).toMatchObject({ code: 0, stderr: '' });
      expect(tree.stdout).toContain('SR-IOV disabled  0 of 7 VFs');
      const { stdout } = await status(`--socket-path=${path}`, '--json');
      expect(JSON.parse(stdout) as DeviceStatus).toMatchObject({ phase: 'disabled', totalVfs: 7 });
      const all = await status();
      expect(all.stdout).toContain(`${path}, process ${backend.pid}\n`);
    } finally {
      backend.kill();
      await once(backend, 'exit');
    }
  });

  it('names a path once where nobody listens', async () => {
    const { code, stderr } = await status(`--socket-path=${path}`);
    expect(code).toBe(1);
    expect(stderr.split(path)).toHaveLength(2);
    expect(stderr).toContain('is the backend running?');
  });

  it.each([
    ['a QMP socket', '{"QMP": {"version": {}}}\r\n'],
    ['a server that closes at once', undefined],
  ])('says of %s that no backend answers there', async (_what, greeting) => {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      if (greeting === undefined) {
        socket.destroy();
      } else {
        socket.write(greeting);
      }
    });
    await listen(server);
    const { code, stderr } = await status(`--socket-path=${path}`);
    server.close();
    expect(code).toBe(1);
    expect(stderr).toMatch(/^vfio-user-sriov: [^\n]+\n$/);
    expect(stderr).toContain("give the PF's socket of a backend");
  });

  it('waits no longer than it is told to', async () => {
    const server = createServer(() => {});
    await listen(server);
    const { code, stderr } = await status(`--socket-path=${path}`, '--timeout=50');
    server.close();
    expect(code).toBe(1);
    expect(stderr).toContain('does not answer; look at its log');
  });
});
