// What is left behind by a launcher that was killed: nothing.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { guardianCommand } from '../../../vmm-glue/qemu/guardian.ts';

let folder: string;
let guardian: ChildProcess;
let qemu: ChildProcess;
let backend: ChildProcess;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'guardian-'));
  const [shell, ...args] = guardianCommand(folder);
  guardian = spawn(shell, args, { stdio: ['pipe', 'ignore', 'ignore'] });
  qemu = spawn('sleep', ['60']);
  backend = spawn('sleep', ['60']);
});

afterEach(() => {
  for (const child of [qemu, backend]) {
    child.kill('SIGKILL');
  }
});

it('kills QEMU, asks the backend to end, and removes the folder when the pipe closes', async () => {
  guardian.stdin?.end(`backend ${backend.pid}\nqemu ${qemu.pid}\n`);
  const ends = await Promise.all([once(qemu, 'exit'), once(backend, 'exit')]);
  expect(ends.map(([, signal]) => signal)).toEqual(['SIGKILL', 'SIGTERM']);
  await once(guardian, 'exit');
  expect(existsSync(folder)).toBe(false);
});

it('leaves alone what has ended by itself', async () => {
  guardian.stdin?.end(`qemu ${qemu.pid}\nqemu \nbackend ${backend.pid}\n`);
  await once(backend, 'exit');
  await once(guardian, 'exit');
  expect([qemu.exitCode, qemu.signalCode]).toEqual([null, null]);
});

it('does nothing once the launcher has cleaned up', async () => {
  guardian.stdin?.end(`qemu ${qemu.pid}\nbackend ${backend.pid}\ndone\n`);
  await once(guardian, 'exit');
  expect([qemu.signalCode, backend.signalCode]).toEqual([null, null]);
  expect(existsSync(folder)).toBe(true);
});
