// Which processes `status` takes for backends of this user: a /proc of the test's own.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { runningBackends } from '../../../vmm-glue/commands/running-backends.ts';

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
});
