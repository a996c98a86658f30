// What the Debian package does before and after it goes, with programs that note what they are asked for.
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

const SCRIPTS = ['prerm', 'postrm'] as const;

/** Has what stands for /run and /etc. */
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'removal-'));
  for (const name of SCRIPTS) {
    const script = readFileSync(new URL(`../../../packaging/deb/${name}`, import.meta.url), 'utf8');
    writeFileSync(
      join(folder, name),
      script.replaceAll('/run/', `${folder}/run/`).replaceAll('/etc/', `${folder}/etc/`),
    );
  }
  make('run/vfio-user-sriov/', 'run/systemd/system/', 'etc/systemd/system/', 'bin/');
  program('systemctl', `echo "systemctl $1" >>${folder}/asked`);
  program('vfio-user-sriov', `echo "$*" >>${folder}/asked; [ "$2" != --pf=0000:01:00.0 ]`);
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Makes empty files, and folders, whose paths end with a slash. */
function make(...paths: string[]): void {
  for (const path of paths) {
    mkdirSync(join(folder, path.slice(0, path.lastIndexOf('/'))), { recursive: true });
    if (!path.endsWith('/')) {
      writeFileSync(join(folder, path), '');
    }
  }
}

function program(name: string, script: string): void {
  writeFileSync(join(folder, 'bin', name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

function run(
  script: (typeof SCRIPTS)[number],
  action: string,
): { status: number | null; asked: string[] } {
  const env = { ...process.env, PATH: `${folder}/bin:${process.env.PATH}` };
  const { status } = spawnSync('sh', [join(folder, script), action], { env });
  const file = join(folder, 'asked');
  return { status, asked: existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : [] };
}

/** The files and folders of `at`, sorted. */
function left(at: string): string[] {
  const path = join(folder, at);
  return existsSync(path) ? readdirSync(path, { recursive: true, encoding: 'utf8' }).sort() : [];
}

it('services are stopped, and each PF that is prepared still is given back, but for one that is in use', () => {
  for (const name of ['0000:01:00.0.json', '0000:02:00.0.json', '0000:03:00.0.lock']) {
    make(`run/vfio-user-sriov/${name}`);
  }
  expect(run('prerm', 'remove')).toEqual({
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
  rmSync(join(folder, 'run/systemd'), { recursive: true });
  expect(run('prerm', 'remove')).toEqual({ status: 0, asked: [] });
});

it('an upgrade leaves all as it is', () => {
  make('run/vfio-user-sriov/0000:01:00.0.json');
  expect(run('prerm', 'upgrade')).toEqual({ status: 0, asked: [] });
});

it('folders of the units go, and those of other vfio-user programs stay', () => {
  make(
    'run/vfio-user/0000:01:00.0/vfs/vf0.sock',
    'run/vfio-user/0000:01:00.0/state/',
    'run/vfio-user/0000:01:00.0/domain',
    'run/vfio-user/other/pf.sock',
    'run/vfio-user/empty/',
    'run/vfio-user-sriov/0000:01:00.0.lock',
  );
  expect(run('postrm', 'remove').status).toBe(0);
  expect(left('run/vfio-user')).toEqual(['empty', 'other', 'other/pf.sock']);
  expect(left('run')).not.toContain('vfio-user-sriov');
});

it('the folder that all vfio-user programs share goes with the last of them', () => {
  make('run/vfio-user/0000:01:00.0/vfs/', 'run/vfio-user/0000:01:00.0/state/');
  expect(run('postrm', 'remove').status).toBe(0);
  expect(left('run')).not.toContain('vfio-user');
});

it('a PF that is still prepared keeps its note', () => {
  make('run/vfio-user-sriov/0000:01:00.0.json', 'run/vfio-user-sriov/0000:01:00.0.lock');
  expect(run('postrm', 'remove').status).toBe(0);
  expect(left('run/vfio-user-sriov')).toEqual(['0000:01:00.0.json']);
});

it('a purge takes what had units start, and options', () => {
  const unit = 'vfio-user-sriov-prepare@0000:01:00.0.service';
  make(
    `etc/systemd/system/multi-user.target.wants/${unit}`,
    'etc/systemd/system/multi-user.target.wants/others.service',
    `etc/systemd/system/sys-bus-pci-devices-0000:01:00.0.device.wants/${unit}`,
    'etc/vfio-user-sriov/0000:01:00.0.conf',
  );
  expect(run('postrm', 'purge').status).toBe(0);
  expect(left('etc')).toEqual([
    'systemd',
    'systemd/system',
    'systemd/system/multi-user.target.wants',
    'systemd/system/multi-user.target.wants/others.service',
  ]);
});
