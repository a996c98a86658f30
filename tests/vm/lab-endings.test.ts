// The lab's programs, ended by a signal: nothing of them is left. No guest boots: what is started in its place sleeps.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { BY_A_PROGRAM } from '../patience.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/dist\/$/, '/');
const LAB = join(ROOT, 'dist/tests/lab/cli.js');
const SLEEPER = ['--', '/bin/sh', '-c', 'exec sleep 100'];

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'lab-endings-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** Ends the program by a signal when it has made a folder of that name; gives how it ended. */
async function cutShort(
  args: readonly string[],
  begun: string,
  signal: NodeJS.Signals,
): Promise<unknown[]> {
  const program = spawn(process.execPath, [LAB, ...args], {
    stdio: ['pipe', 'ignore', 'ignore'],
    env: { ...process.env, TMPDIR: folder },
  });
  await expect
    .poll(() => readdirSync(folder), BY_A_PROGRAM)
    .toContainEqual(expect.stringContaining(begun));
  const end = once(program, 'exit');
  program.kill(signal);
  return await end;
}

it.each(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const)(
  '`lab boot` leaves nothing at a %s, by which it ends',
  async (signal) => {
    expect(await cutShort(['boot', ...SLEEPER], 'guest-vm-', signal)).toEqual([null, signal]);
    expect(readdirSync(folder)).toEqual([]);
  },
);

it.each(['SIGTERM', 'SIGHUP', 'SIGQUIT'] as const)(
  '`lab guest` leaves nothing at a %s, and starts no VM any more',
  async (signal) => {
    expect(await cutShort(['guest'], 'lab-guest-', signal)).toEqual([1, null]);
    expect(readdirSync(folder)).toEqual([]);
  },
);
