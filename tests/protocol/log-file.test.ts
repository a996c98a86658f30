// `--log-file`: where the log goes, and that it goes on in a new file when it is asked to.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { BY_A_PROGRAM } from '../patience.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

let folder: string;
let socket: string;
let file: string;
let backend: ChildProcess | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'log-file-'));
  socket = join(folder, 'pf.sock');
  file = join(folder, 'log');
});
afterEach(() => {
  backend?.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

async function serve(...more: string[]): Promise<void> {
  const args = ['serve', '--loopback', `--socket-path=${socket}`, `--log-file=${file}`, ...more];
  backend = spawn(process.execPath, [CLI, ...args], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, FORCE_COLOR: '1' },
  });
  await once(backend.stdout!, 'data');
}

/** A VMM's reset of the PF, which is a line of the log. */
async function reset(): Promise<void> {
  const client = await VfioUserClient.connect(socket);
  await client.reset();
  client.close();
}

const logged = () => readFileSync(file, 'utf8');

it('the log is in the file, this user’s alone, and behind what was there', async () => {
  writeFileSync(file, 'before\n', { mode: 0o600 });
  await serve();
  await reset();
  await expect.poll(logged, BY_A_PROGRAM).toMatch(/^before\n\{.*pf: reset by the VMM/);
  rmSync(file);
  backend!.kill('SIGHUP');
  await expect.poll(() => existsSync(file), BY_A_PROGRAM).toBe(true);
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

it('on SIGHUP it goes on in a new file, and the backend goes on', async () => {
  await serve();
  renameSync(file, `${file}.1`);
  backend!.kill('SIGHUP');
  await expect.poll(() => existsSync(file), BY_A_PROGRAM).toBe(true);
  await reset();
  await expect.poll(logged, BY_A_PROGRAM).toContain('pf: reset by the VMM');
  expect(readFileSync(`${file}.1`, 'utf8')).not.toContain('pf: reset');
});

it('text for people has no colours in a file, whatever the environment asks for', async () => {
  await serve('--log-format=pretty');
  await reset();
  await expect.poll(logged, BY_A_PROGRAM).toMatch(/INFO.*pf: reset by the VMM/);
  expect(logged()).not.toContain('\u001b');
});

it('a link, or a folder that is not there, is refused in one line', () => {
  symlinkSync('/etc/passwd', file);
  const refused = (path: string) =>
    spawnSync(
      process.execPath,
      [CLI, 'serve', '--loopback', '--socket-path=x', `--log-file=${path}`],
      {
        encoding: 'utf8',
        cwd: folder,
        timeout: BY_A_PROGRAM.timeout,
      },
    );
  for (const path of [file, join(folder, 'nowhere', 'log'), folder]) {
    const { status, stderr } = refused(path);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^vfio-user-sriov: open [^\n]+\n$/);
  }
});
