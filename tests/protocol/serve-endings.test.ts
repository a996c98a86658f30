// How the programs end, and what they say then: signals, outputs that take nothing, files that are not what they should.

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { BY_A_PROGRAM } from '../patience.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

let folder: string;
let ends: (() => void)[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'endings-'));
  ends = [];
});
afterEach(() => {
  for (const end of ends) {
    end();
  }
  rmSync(folder, { recursive: true, force: true });
});

interface ServeOptions {
  readonly stderr?: number;
  readonly env?: NodeJS.ProcessEnv;
  readonly args?: readonly string[];
}

/** A backend that clients can connect to. */
async function serve({ stderr, env, args = [] }: ServeOptions = {}) {
  const path = join(folder, 'pf.sock');
  const child = spawn(
    process.execPath,
    [CLI, 'serve', '--loopback', `--socket-path=${path}`, ...args],
    {
      stdio: ['ignore', 'pipe', stderr ?? 'pipe'],
      env: { ...process.env, ...env },
    },
  );
  ends.push(() => child.kill('SIGKILL'));
  let log = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  await once(child.stdout!, 'data');
  return { child, path, log: () => log };
}

/** The guest asks for more VFs than there are, again and again: a line each time. */
async function makeLines(path: string, count: number): Promise<void> {
  const client = await VfioUserClient.connect(path);
  await client.reset();
  const write = (offset: number, value: number) =>
    client.writeRegion(7, 0x110 + offset, Uint8Array.of(value, 0));
  await write(0x10, 1);
  for (let i = 0; i < count; i++) {
    await write(0x08, 9);
    await write(0x08, 8);
  }
  client.close();
}

describe('a backend', () => {
  it.each(['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP'] as const)(
    'ends in good order on %s',
    async (signal) => {
      const { child, path } = await serve();
      const exit = once(child, 'exit');
      child.kill(signal);
      expect(await exit).toEqual([0, null]);
      expect(existsSync(path)).toBe(false);
    },
  );

  it('that is a service is not ended by SIGHUP', async () => {
    const { child, path, log } = await serve({ env: { NOTIFY_SOCKET: join(folder, 'notify') } });
    child.kill('SIGHUP');
    await expect.poll(log, BY_A_PROGRAM).toContain('SIGHUP is ignored');
    (await VfioUserClient.connect(path)).close();
  });

  it('opens no debugger on SIGUSR1, nor does a process of its own', async () => {
    const { child, path, log } = await serve();
    child.kill('SIGUSR1');
    (await VfioUserClient.connect(path)).close();
    const closed = once(child, 'close');
    child.kill('SIGTERM');
    expect(await closed).toEqual([0, null]);
    expect(log()).not.toContain('Debugger');
    const helper = spawn(
      process.execPath,
      [
        fileURLToPath(
          new URL('../../dist/backend/devices/vfio/vfs/numvfs-writer-child.js', import.meta.url),
        ),
      ],
      { stdio: 'pipe' },
    );
    ends.push(() => helper.kill('SIGKILL'));
    let errors = '';
    helper.stderr.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    const request = `${JSON.stringify({ id: 1, path: '/proc/self/stat' })}\n`;
    helper.stdin.write(request);
    await once(helper.stdout, 'data');
    helper.kill('SIGUSR1');
    const helperClosed = once(helper, 'close');
    helper.stdin.end(request);
    expect(await helperClosed).toEqual([0, null]);
    expect(errors).not.toContain('Debugger');
  });
});

describe('the work goes on', () => {
  it('where the log is on a full disk', async () => {
    const full = openSync('/dev/full', 'w');
    const { child, path } = await serve({ stderr: full });
    closeSync(full);
    await makeLines(path, 20);
    await makeLines(path, 1);
    const exit = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await exit).toEqual([0, null]);
  });

  it('where the guest makes lines without end, of which the log takes a burst', async () => {
    const { child, path, log } = await serve();
    await makeLines(path, 1000);
    const close = once(child, 'close');
    child.kill('SIGTERM');
    await close;
    const lines = log().split('VF Enable failed').length - 1;
    expect(lines).toBeGreaterThan(10);
    expect(lines).toBeLessThan(500);
  });

  it('where nobody reads the log, and what is lost is counted', async () => {
    const fifo = join(folder, 'log');
    execFileSync('mkfifo', [fifo]);
    const both = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    const { child, path } = await serve({
      stderr: both,
      args: ['--log-level=debug', '--log-format=json'],
    });
    await makeLines(path, 2000);
    const exit = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await exit).toEqual([0, null]);
    closeSync(both);
  });
});

function run(args: readonly string[], options: { stdout?: number; env?: NodeJS.ProcessEnv } = {}) {
  return spawnSync(process.execPath, [CLI, ...args], {
    encoding: 'utf8',
    timeout: 10_000,
    stdio: ['ignore', options.stdout ?? 'pipe', 'pipe'],
    env: { ...process.env, ...options.env },
  });
}

describe('is told in one line, with a fix:', () => {
  const oneLine = (stderr: string, text: string) => {
    expect(stderr).toMatch(/^vfio-user-sriov: [^\n]+; [^\n]+\n$/);
    expect(stderr).toContain(text);
  };

  it('a socket path below a file', () => {
    writeFileSync(join(folder, 'file'), '');
    const { status, stderr } = run(['serve', '--loopback', `--socket-path=${folder}/file/pf.sock`]);
    expect(status).toBe(1);
    oneLine(stderr, 'ENOTDIR');
  });

  it('a file for the folder of the VF sockets', () => {
    writeFileSync(join(folder, 'file'), '');
    const args = ['serve', '--loopback', `--socket-path=${folder}/pf.sock`];
    const { status, stderr } = run([...args, `--vf-sockets=${folder}/file`]);
    expect(status).toBe(1);
    oneLine(stderr, '--vf-sockets');
  });

  it('a limit on open files that is too low for the sockets', () => {
    const args = [CLI, 'serve', '--loopback', '--total-vfs=200', `--vf-sockets=${folder}/vfs`];
    const { status, stderr } = spawnSync(
      'prlimit',
      ['--nofile=150', process.execPath, ...args, `--socket-path=${folder}/pf.sock`],
      { encoding: 'utf8', timeout: 10_000 },
    );
    expect(status).toBe(1);
    oneLine(stderr, 'raise its limit on open files');
  });

  it('no folder for temporary files', () => {
    const qemu = [
      '--',
      'qemu-system-x86_64',
      '-machine',
      'q35,memory-backend=m',
      '-object',
      'memory-backend-memfd,id=m,size=64M,share=on',
    ];
    const { status, stderr } = run(['qemu', '--loopback', ...qemu], {
      env: { TMPDIR: join(folder, 'none') },
    });
    expect(status).toBe(1);
    oneLine(stderr, 'TMPDIR');
  });

  it('a status asked of a QMP socket', async () => {
    const path = join(folder, 'qmp.sock');
    const server = createServer((socket) =>
      socket.on('error', () => {}).write('{"QMP": {"version": {}}}\r\n'),
    );
    server.listen(path);
    await once(server, 'listening');
    const child = spawn(process.execPath, [CLI, 'status', `--socket-path=${path}`]);
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    await once(child, 'close');
    server.close();
    expect(child.exitCode).toBe(1);
    oneLine(stderr, path);
  });

  it.each([
    [['serve', '--loopback', '--socket-path=PATH'], 'ready line'],
    [['qemu-args', '--loopback', '--help'], 'standard output'],
  ])('a full disk below standard output of %j', (args, text) => {
    const full = openSync('/dev/full', 'w');
    const { status, stderr } = run(
      args.map((arg) => arg.replace('PATH', join(folder, 'pf.sock'))),
      { stdout: full },
    );
    closeSync(full);
    expect(status).toBe(1);
    oneLine(stderr, text);
    expect(existsSync(join(folder, 'pf.sock'))).toBe(false);
  });
});

it('whoever reads the output may go: no word of it', () => {
  const script = `"${process.execPath}" "${CLI}" --help 2> "${folder}/errors" | true`;
  execFileSync('bash', ['-c', script]);
  expect(readFileSync(join(folder, 'errors'), 'utf8')).toBe('');
});

it('the folder of a socket that may not be looked into is named', () => {
  const closed = join(folder, 'closed');
  mkdirSync(closed);
  chmodSync(closed, 0);
  const asNobody = process.getuid?.() === 0 ? ['setpriv', '--reuid=65534', '--clear-groups'] : [];
  const [program = '', ...args] = [
    ...asNobody,
    process.execPath,
    CLI,
    'serve',
    '--loopback',
    `--socket-path=${closed}/pf.sock`,
  ];
  chmodSync(folder, 0o755);
  const { stderr } = spawnSync(program, args, { encoding: 'utf8', timeout: 10_000 });
  expect(stderr).toMatch(/^vfio-user-sriov: [^\n]*EACCES[^\n]*; [^\n]*\n$/);
});
