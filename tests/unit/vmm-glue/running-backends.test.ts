// Which processes `status` takes for backends of this user: a /proc of the test's own.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runningBackends } from '../../../vmm-glue/commands/running-backends.ts';

const ROOT = 0;
/** Whoever runs the test: its files are this user's, and root sees more. */
const UID = process.getuid?.() ?? 0;
let proc: string;

beforeEach(() => {
  proc = mkdtempSync(join(tmpdir(), 'proc-'));
});

afterEach(() => {
  rmSync(proc, { recursive: true });
});

function runs(pid: number, ...args: string[]): void {
  const folder = join(proc, String(pid));
  mkdirSync(folder);
  writeFileSync(join(folder, 'cmdline'), args.map((word) => `${word}\0`).join(''));
  symlinkSync('/home/dev', join(folder, 'cwd'));
}

it.each([
  [['node', '/x/dist/cli.js', 'serve', '--loopback', '--socket-path=/run/pf.sock'], '/run/pf.sock'],
  [['node', '/usr/bin/vfio-user-sriov', 'serve', '--socket-path', 'pf.sock'], '/home/dev/pf.sock'],
  [
    ['node', 'bin/vfio-user-sriov.js', 'serve', '--socket-path=a', '--socket-path=b'],
    '/home/dev/b',
  ],
])('%j serves at %s', (args, socketPath) => {
  runs(7, ...args);
  expect(runningBackends(UID, proc)).toEqual([{ pid: 7, socketPath }]);
});

describe('a backend with a socket that it was handed', () => {
  const NUMBER = '0000000000000000: 00000002 00000000';
  /** As the kernel lists them, fd 3 first, and what fd 3 and 4 are. */
  const has = (pid: number, ...sockets: readonly string[]) => {
    const folder = join(proc, String(pid));
    mkdirSync(join(folder, 'net'));
    mkdirSync(join(folder, 'fd'));
    const lines = sockets.map(
      (socket, at) => `${NUMBER} ${socket.replace('INODE', `   7${at}`)}\n`,
    );
    writeFileSync(
      join(folder, 'net/unix'),
      `Num RefCount Protocol Flags Type St Inode Path\n${lines.join('')}`,
    );
    for (const at of sockets.keys()) {
      symlinkSync(`socket:[7${at}]`, join(folder, 'fd', String(3 + at)));
    }
  };
  const LISTENING = '00010000 0001 01 INODE /run/a b/pf.sock';
  const VF = '00010000 0001 01 INODE /run/vf0.sock';

  it('serves where its fd listens', () => {
    runs(7, 'node', '/x/cli.js', 'serve', '--fd=4');
    has(7, VF, LISTENING);
    expect(runningBackends(UID, proc)).toEqual([{ pid: 7, socketPath: '/run/a b/pf.sock' }]);
  });

  it('serves where the one of the PF listens that systemd passes', () => {
    runs(7, 'node', '/x/cli.js', 'serve', '--loopback');
    has(7, VF, LISTENING);
    const environ = ['LISTEN_PID=7', 'LISTEN_FDS=2', 'LISTEN_FDNAMES=vf:pf', 'A=b=c', ''];
    writeFileSync(join(proc, '7/environ'), environ.join('\0'));
    expect(runningBackends(UID, proc)).toEqual([{ pid: 7, socketPath: '/run/a b/pf.sock' }]);
  });

  it.each([
    ['that is connected', '00000000 0001 03 INODE /run/pf.sock'],
    ['with an abstract name', '00010000 0001 01 INODE @pf'],
    ['without a name', '00010000 0001 01 INODE'],
  ])('cannot be asked over one %s', (_what, socket) => {
    runs(7, 'node', '/x/cli.js', 'serve', '--fd=3');
    has(7, socket);
    expect(runningBackends(UID, proc)).toEqual([]);
  });
});

it.each([
  [['node', '/x/dist/cli.js', 'serve', '--fd=3']],
  [['node', '/x/dist/cli.js', 'attach-qemu', '--socket-path=/run/pf.sock']],
  [['other-server', 'serve', '--socket-path=/run/pf.sock']],
  [['node', '/x/dist/cli.js', 'serve', '--socket-path']],
  [[]],
])('%j serves at no path', (args) => {
  runs(7, ...args);
  expect(runningBackends(UID, proc)).toEqual([]);
});

it('gives them by process number, without those of other users and what ends meanwhile', () => {
  const serve = ['node', '/x/cli.js', 'serve'];
  runs(20, ...serve, '--socket-path=/b');
  runs(3, ...serve, '--socket-path=/a');
  mkdirSync(join(proc, '5'));
  mkdirSync(join(proc, 'self'));
  expect(runningBackends(UID, proc).map(({ socketPath }) => socketPath)).toEqual(['/a', '/b']);
  expect(runningBackends(UID + 1, proc)).toEqual([]);
  expect(runningBackends(ROOT, proc)).toHaveLength(2);
});
