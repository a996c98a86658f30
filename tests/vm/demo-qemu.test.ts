// `npm run demo:qemu`: whole, all that it shows is true; cut short, nothing of it is left, neither folder nor process.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { BY_A_GUEST, BY_A_PROGRAM } from '../patience.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/dist\/$/, '/');
const DEMO = join(ROOT, 'dist/examples/demo-qemu.js');

let folder: string;
let demo: ChildProcess;
let told: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'demo-qemu-'));
  // A process group of its own, as a shell makes one for what a terminal's keys end.
  demo = spawn(process.execPath, [DEMO], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TMPDIR: folder },
    detached: true,
  });
  told = '';
  for (const output of [demo.stdout!, demo.stderr!]) {
    output.on('data', (chunk: Buffer) => {
      told += chunk.toString();
    });
  }
});
afterEach(() => {
  for (const pid of processes()) {
    process.kill(pid, 'SIGKILL');
  }
  rmSync(folder, { recursive: true, force: true });
});

/** Everything that the demo has started, however far down, and the demo. */
function processes(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => partsOf(pid, 'environ').includes(`TMPDIR=${folder}`))
    .map(Number);
}

/** None of a process that is gone. */
function partsOf(pid: number | string, file: 'environ' | 'cmdline'): string[] {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

/** QEMU runs, with the backend's functions; a look at what it can do has none. */
async function untilTheGuestBoots(): Promise<void> {
  const words = () => processes().flatMap((pid) => partsOf(pid, 'cmdline'));
  await expect.poll(words, BY_A_GUEST).toContainEqual(expect.stringContaining('vfio-user-pci'));
}

it('is true from beginning to end, and leaves nothing', async () => {
  const [code] = await once(demo, 'close');
  expect(told).toMatch(/All \d+ checks are true/);
  expect(code).toBe(0);
  expect(readdirSync(folder)).toEqual([]);
});

it.each([
  ['SIGTERM', 'to it alone', 1],
  ['SIGINT', 'from its terminal', -1],
  ['SIGQUIT', 'from its terminal', -1],
  ['SIGHUP', 'from its terminal', -1],
] as const)('%s %s leaves nothing', async (signal, _, whom) => {
  await untilTheGuestBoots();
  const end = once(demo, 'close');
  process.kill(whom * demo.pid!, signal);
  expect(await end).toEqual([null, signal]);
  await expect.poll(processes, BY_A_PROGRAM).toEqual([]);
  expect(readdirSync(folder)).toEqual([]);
  expect(told).not.toContain('failed');
});

it('an output that nobody reads any more leaves nothing', async () => {
  await untilTheGuestBoots();
  const end = once(demo, 'exit');
  demo.stdout!.destroy();
  expect(await end).toEqual([1, null]);
  await expect.poll(processes, BY_A_PROGRAM).toEqual([]);
  expect(readdirSync(folder)).toEqual([]);
});
