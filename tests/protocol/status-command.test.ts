// `status` as a person meets it: the tree of a backend that runs, and one line where nobody gives an answer.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DeviceStatus } from '../../protocol/hotplug/status.ts';
import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { differences } from '../json-tables.ts';
import { BY_A_PROGRAM } from '../patience.ts';
import { OwnFolder } from './own-folder.ts';

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

/** What no driver may do, whenever it does it. */
async function writeTooManyVfs(socket: string): Promise<void> {
  const client = await VfioUserClient.connect(socket);
  await client.writeRegion(RegionIndex.config, 0x110 + 0x10, Uint8Array.of(200, 0));
  client.close();
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
      expect(differences('status', JSON.parse(stdout))).toEqual([]);
      const all = await status();
      expect(all.stdout).toContain(`${path}, process ${backend.pid}\n`);
    } finally {
      backend.kill();
      await once(backend, 'exit');
    }
  });

  describe('of a backend that records', () => {
    let served: OwnFolder;

    beforeEach(() => {
      served = new OwnFolder();
    });
    afterEach(() => served.remove());

    it('shows the last that a driver did against the standard, while it is recorded', async () => {
      const trace = served.file('trace');
      await served.serve(`--trace=${trace}`, '--trace-size=1M');
      const shown = async () => (await status(`--socket-path=${served.socket}`)).stdout;
      expect(await shown()).toContain('the driver did nothing that the standard forbids');
      await writeTooManyVfs(served.socket);
      expect(await shown()).toMatch(
        /├─ recording: \d+ events, into .*trace\n└─ last finding: \d+\.\d+ NumVFs above TotalVFs: NumVFs was written as 200; TotalVFs is 7\n/,
      );
      const { stdout } = await status(`--socket-path=${served.socket}`, '--json');
      expect(JSON.parse(stdout)).toMatchObject({
        trace: { path: trace, finding: { rule: 'numvfs-above-totalvfs' } },
      });
      expect(differences('status', JSON.parse(stdout))).toEqual([]);
      renameSync(trace, `${trace}.elsewhere`);
      expect(await shown()).toContain(
        `what the driver did is not known: open ${trace}: no such file or directory (ENOENT)`,
      );
    });
  });

  it('names a path once where nobody listens', async () => {
    const { code, stderr } = await status(`--socket-path=${path}`);
    expect(code).toBe(1);
    expect(stderr.split(path)).toHaveLength(2);
    expect(stderr).toContain('is the backend running?');
  });

  it('of all backends says of one that has gone so, and does nothing to a terminal by its path', async () => {
    const program = join(folder, 'vfio-user-sriov.js');
    writeFileSync(program, 'setTimeout(() => {}, 60_000);');
    const gone = `${path}\u001b[2J`;
    const backend = spawn(process.execPath, [program, 'serve', `--socket-path=${gone}`]);
    await once(backend, 'spawn');
    const { code, stdout, stderr } = await status('--timeout=100');
    backend.kill();
    expect(code).toBe(1);
    expect(stdout + stderr).not.toContain('\u001b');
    expect(stdout).toContain(`${path}\\u001b[2J, process ${backend.pid}`);
    expect(stderr).toContain(
      `connect ${path}\\u001b[2J: no such file or directory (ENOENT); it has ended since`,
    );
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

it('status waits for all backends that do not answer together', async () => {
  const stopped = await Promise.all(
    ['a', 'b', 'c'].map(async (name) => {
      const serve = [CLI, 'serve', '--loopback', `--socket-path=${join(folder, name)}`];
      const backend = spawn(process.execPath, serve, { stdio: ['ignore', 'pipe', 'ignore'] });
      await once(backend.stdout, 'data');
      backend.kill('SIGSTOP');
      return backend;
    }),
  );
  try {
    // One after the other they would take longer than `status` is given here.
    const { stderr } = await status('--timeout=3500');
    for (const name of ['a', 'b', 'c']) {
      expect(stderr).toContain(`${join(folder, name)}: the backend does not answer`);
    }
  } finally {
    for (const backend of stopped) {
      backend.kill('SIGKILL');
    }
  }
});

describe('status --watch', () => {
  let backend: ChildProcess;

  beforeEach(async () => {
    const serve = [CLI, 'serve', '--loopback', `--socket-path=${path}`];
    backend = spawn(process.execPath, serve, { stdio: ['ignore', 'pipe', 'ignore'] });
    await once(backend.stdout!, 'data');
  });
  afterEach(() => {
    backend.kill('SIGKILL');
  });

  const watching = (command: string, args: readonly string[]) => {
    const child = spawn(command, args, { env: { ...process.env, TERM: 'xterm' } });
    let text = '';
    let errors = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    return { child, text: () => text, errors: () => errors };
  };
  const args = () => ['status', '--watch=100', `--socket-path=${path}`];

  it('is one frame below the other where there is no terminal, until Ctrl-C', async () => {
    const { child, text } = watching(process.execPath, [CLI, ...args()]);
    await expect
      .poll(() => text().split('SR-IOV disabled').length, BY_A_PROGRAM)
      .toBeGreaterThan(2);
    child.kill('SIGINT');
    expect(await once(child, 'exit')).toEqual([0, null]);
    expect(text()).not.toContain('\u001b');
  });

  it('shows what a driver does, decoded, though nobody records it', async () => {
    const { child, text } = watching(process.execPath, [CLI, ...args()]);
    await expect.poll(text, BY_A_PROGRAM).toContain('SR-IOV disabled');
    await writeTooManyVfs(path);
    await expect.poll(text, BY_A_PROGRAM).toMatch(/\d\.\d{6} pf {3}W SR-IOV NumVFs +0x00c8\n/);
    expect(text()).toMatch(/last finding, at \d+\.\d{6}: NumVFs above TotalVFs\n/);
    child.kill('SIGINT');
    await once(child, 'exit');
  });

  it('ends with one line and exit code 1 when the backend ends', async () => {
    const { child, text, errors } = watching(process.execPath, [CLI, ...args()]);
    await expect.poll(text, BY_A_PROGRAM).toContain('SR-IOV disabled');
    backend.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([1, null]);
    expect(errors()).toMatch(/^vfio-user-sriov: [^\n]*the backend has ended; [^\n]+\n$/);
  });

  it('draws in place on a terminal, and leaves it as it was', async () => {
    const command = [process.execPath, CLI, ...args()].join(' ');
    const { child, text } = watching('script', ['-qec', command, '/dev/null']);
    await expect.poll(text, BY_A_PROGRAM).toContain('\u001b[Hloopback');
    child.stdin.write('\u0003');
    await once(child, 'exit');
    expect(text().trimEnd().endsWith('\u001b[?7h\u001b[?25h\u001b[?1049l')).toBe(true);
    expect(text().split('\u001b[?1049h')).toHaveLength(2);
  });
});
