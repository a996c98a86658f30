// `--log-file`: where the log goes, and that it goes on in a new file when it is asked to.

import { execFileSync } from 'node:child_process';
import {
  existsSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { BY_A_PROGRAM } from '../patience.ts';
import { OwnFolder } from './own-folder.ts';

let folder: OwnFolder;
let file: string;

beforeEach(() => {
  folder = new OwnFolder();
  file = folder.file('log');
});
afterEach(() => folder.remove());

const serve = (...more: string[]) => folder.serve(`--log-file=${file}`, ...more);

/** A VMM's reset of the PF, which is a line of the log. */
async function reset(): Promise<void> {
  const client = await VfioUserClient.connect(folder.socket);
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
  folder.backend.kill('SIGHUP');
  await expect.poll(() => existsSync(file), BY_A_PROGRAM).toBe(true);
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

it('on SIGHUP it goes on in a new file, and the backend goes on', async () => {
  await serve();
  renameSync(file, `${file}.1`);
  folder.backend.kill('SIGHUP');
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
    folder.run('serve', '--loopback', '--socket-path=x', `--log-file=${path}`);
  for (const path of [file, folder.file('nowhere/log'), folder.path]) {
    const { status, stderr } = refused(path);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^vfio-user-sriov: --log-file: open [^\n]+; [^\n]+\n$/);
    expect(stderr).not.toContain('dmesg');
  }
});

it('a disk that is full costs no work, and what was logged meanwhile comes when there is room', async () => {
  await serve();
  await reset();
  await expect.poll(logged, BY_A_PROGRAM).toContain('pf: reset by the VMM');
  const { size } = statSync(file);
  const mayGrowTo = (bytes: number | 'unlimited') =>
    execFileSync('prlimit', [`--pid=${folder.backend.pid}`, `--fsize=${bytes}:unlimited`]);
  mayGrowTo(size);
  await reset();
  await reset();
  expect(statSync(file).size).toBe(size);
  mayGrowTo('unlimited');
  const resets = () => logged().match(/pf: reset by the VMM/g)?.length;
  await expect.poll(resets, BY_A_PROGRAM).toBe(3);
});
