// What the Debian package does before it goes, with programs that note what they are asked for.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const SCRIPT = fileURLToPath(new URL('../../../packaging/deb/prerm', import.meta.url));

/** Stands for /run. */
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'prerm-'));
  writeFileSync(
    join(folder, 'prerm'),
    readFileSync(SCRIPT, 'utf8').replaceAll('/run/', `${folder}/`),
  );
  for (const name of ['vfio-user-sriov', 'systemd/system']) {
    mkdirSync(join(folder, name), { recursive: true });
  }
  program('systemctl', `echo "systemctl $1" >>${folder}/asked`);
  program('vfio-user-sriov', `echo "$*" >>${folder}/asked; [ "$2" != --pf=0000:01:00.0 ]`);
});
afterEach(() => rmSync(folder, { recursive: true }));

function program(name: string, script: string): void {
  mkdirSync(join(folder, 'bin'), { recursive: true });
  writeFileSync(join(folder, 'bin', name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

function prerm(action: string): { status: number | null; asked: string[] } {
  const env = { ...process.env, PATH: `${folder}/bin:${process.env.PATH}` };
  const { status } = spawnSync('sh', [join(folder, 'prerm'), action], { env });
  const file = join(folder, 'asked');
  return { status, asked: existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : [] };
}

it('services are stopped, and each PF that is prepared still is given back, but for one that is in use', () => {
  for (const pf of ['0000:01:00.0', '0000:02:00.0']) {
    writeFileSync(join(folder, 'vfio-user-sriov', `${pf}.json`), '{}');
  }
  writeFileSync(join(folder, 'vfio-user-sriov', '0000:03:00.0.lock'), '');
  expect(prerm('remove')).toEqual({
    status: 0,
    asked: [
      'systemctl stop',
      'systemctl reset-failed',
      'release --pf=0000:01:00.0',
      'release --pf=0000:02:00.0',
    ],
  });
});

it('nothing is asked of a PF where none is prepared, or of systemd where it does not run', () => {
  rmSync(join(folder, 'systemd'), { recursive: true });
  expect(prerm('remove')).toEqual({ status: 0, asked: [] });
});

it('an upgrade leaves all as it is', () => {
  writeFileSync(join(folder, 'vfio-user-sriov', '0000:01:00.0.json'), '{}');
  expect(prerm('upgrade')).toEqual({ status: 0, asked: [] });
});
