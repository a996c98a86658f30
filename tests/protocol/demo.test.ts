// The demo: whole, all that it shows is true; cut short, nothing of it is left, and nobody is told that something failed.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { BY_A_PROGRAM } from '../patience.ts';

const DEMO = fileURLToPath(new URL('../../dist/examples/demo.js', import.meta.url));
/** The backend runs by then. */
const FIRST_CHECK = '✓';

let folder: string;
let demo: ChildProcess;
let told: string;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'demo-endings-'));
  demo = spawn(process.execPath, [DEMO], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TMPDIR: folder },
  });
  told = '';
  for (const output of [demo.stdout!, demo.stderr!]) {
    output.on('data', (chunk: Buffer) => {
      told += chunk.toString();
    });
  }
  await expect.poll(() => told, BY_A_PROGRAM).toContain(FIRST_CHECK);
});
afterEach(() => {
  demo.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

it('is true from beginning to end, and leaves its timeline alone', async () => {
  const [code] = await once(demo, 'close');
  expect(told).toMatch(/All \d+ checks are true/);
  expect(code).toBe(0);
  expect(readdirSync(folder)).toEqual([expect.stringMatching(/^sriov-timeline-/)]);
}, 60_000);

it.each(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const)(
  '%s leaves nothing',
  async (signal) => {
    const end = once(demo, 'close');
    demo.kill(signal);
    expect(await end).toEqual([null, signal]);
    expect(readdirSync(folder)).toEqual([]);
    expect(told).not.toContain('failed');
  },
);

it('an output that nobody reads any more leaves nothing', async () => {
  const end = once(demo, 'exit');
  demo.stdout!.destroy();
  expect(await end).toEqual([1, null]);
  expect(readdirSync(folder)).toEqual([]);
});
