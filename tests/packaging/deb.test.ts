// The Debian package: what is in it, and that its program runs from where it is unpacked.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
let folder: string;
let deb: string;
let unpacked: string;
/** As `dpkg-deb -c` has them. */
let list: string[];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'deb-test-'));
  unpacked = join(folder, 'root');
  const build = join(ROOT, 'packaging', 'deb', 'build.mjs');
  // Somebody with another umask built it.
  deb = run('sh', '-c', 'umask 007; exec "$@"', 'sh', process.execPath, build, folder).trim();
  run('dpkg-deb', '-x', deb, unpacked);
  list = run('dpkg-deb', '-c', deb).split('\n');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', maxBuffer: 64 * 2 ** 20 });
}

it('needs a Node.js, and nothing else', () => {
  expect(run('dpkg-deb', '-f', deb, 'Depends').trim()).toBe('nodejs (>= 20.19)');
});

it.each([
  './usr/bin/vfio-user-sriov -> ../lib/vfio-user-sriov/bin/vfio-user-sriov.js',
  './usr/lib/vfio-user-sriov/dist/cli.js',
  './usr/lib/systemd/system/vfio-user-sriov@.service',
  './usr/lib/systemd/system/vfio-user-sriov@.socket',
  './usr/lib/systemd/system/vfio-user-sriov-prepare@.service',
  './usr/lib/systemd/system/vfio-user-sriov-glue@.service',
  './usr/lib/systemd/system/vfio-user-sriov-opener@.service',
  './usr/lib/systemd/system/vfio-user-sriov-opener@.socket',
  './usr/lib/systemd/system/vfio-user-sriov-writer@.service',
  './usr/lib/systemd/system/vfio-user-sriov-writer@.socket',
  './usr/lib/sysusers.d/vfio-user-sriov.conf',
  './usr/lib/udev/rules.d/60-vfio-user-sriov.rules',
  './usr/libexec/vfio-user-sriov',
  './usr/share/vfio-user/50-vfio-user-sriov.json',
  './usr/share/man/man1/vfio-user-sriov-serve.1.gz',
  './usr/share/bash-completion/completions/vfio-user-sriov',
  './usr/share/zsh/vendor-completions/_vfio-user-sriov',
  './usr/share/vfio-user-sriov/libvirt/qemu-hook',
  './etc/apparmor.d/abstractions/libvirt-qemu.d/vfio-user-sriov',
  './usr/share/doc/vfio-user-sriov/copyright',
])('has %s, of root', (path) => {
  const line = list.find((each) => each.endsWith(` ${path}`));
  expect(line).toMatch(/^[-l]r[w-x]{2}r[w-]xr[w-]x root\/root|^[-l]rw-r--r-- root\/root/);
});

it('has folders and files that all may read and root alone may write, whoever built it', () => {
  const modes = list.filter((line) => line !== '' && !line.startsWith('l'));
  expect(
    modes.filter((line) => !/^(drwxr-xr-x|-rwxr-xr-x|-rw-r--r--) root\/root /.test(line)),
  ).toEqual([]);
});

it('has the documents, and what they link to', () => {
  const doc = join(unpacked, 'usr/share/doc/vfio-user-sriov');
  const documents = readdirSync(doc, { recursive: true, encoding: 'utf8' }).filter((path) =>
    path.endsWith('.md'),
  );
  expect(documents).toContain('packaging/README.md');
  const dead = documents.flatMap((document) =>
    [...readFileSync(join(doc, document), 'utf8').matchAll(/\]\(([^)#:]+)[^):]*\)/g)]
      .map(([, target]) => join(dirname(document), target!))
      .filter((path) => !existsSync(join(doc, path))),
  );
  expect(dead).toEqual([]);
});

it('has the folder for options of units', () => {
  expect(list.some((line) => line.endsWith(' ./etc/vfio-user-sriov/'))).toBe(true);
});

it('has no tests, and nothing that only builds it', () => {
  expect(list.join('\n')).not.toMatch(
    /node_modules\/(typescript|vitest|@biomejs)\/|\/dist\/tests\//,
  );
});

it('has the pieces of this build alone', () => {
  const made = JSON.parse(readFileSync(join(ROOT, 'dist/pieces.json'), 'utf8')) as string[];
  const shipped = list.flatMap(
    (line) => /\.\/usr\/lib\/vfio-user-sriov\/(dist\/pieces\/.+)/.exec(line)?.[1] ?? [],
  );
  expect(shipped.sort()).toEqual(
    made.filter((path) => path.startsWith('dist/pieces/') && !path.endsWith('.map')).sort(),
  );
});

it('has esbuild’s binary once, and loads a card of one’s own with it', async () => {
  expect(list.filter((line) => /^-rwx.*\/bin\/esbuild$/.test(line))).toHaveLength(1);
  const card = join(unpacked, 'usr/share/doc/vfio-user-sriov/examples/my-card/my-card.ts');
  const path = join(folder, 'card.sock');
  expect(await firstLine(`--device=${card}`, `--socket-path=${path}`)).toContain(
    `ready socket=${path}`,
  );
});

it('lists the licence of each package in it', () => {
  const copyright = readFileSync(join(unpacked, 'usr/share/doc/vfio-user-sriov/copyright'), 'utf8');
  expect(copyright).toContain('Apache License');
  expect(copyright).toMatch(/^koffi 3\.3\.4: MIT$/m);
  expect(copyright).toMatch(/^commander [0-9.]+: MIT$/m);
  const nameless = /: (undefined|see below|UNLICENSED)$/m;
  expect(copyright).not.toMatch(nameless);
});

it('runs, and is what its description says', async () => {
  const program = join(unpacked, 'usr/bin/vfio-user-sriov');
  const { devices, type } = JSON.parse(run(program, 'serve', '--print-capabilities')) as {
    devices: string[];
    type: string;
  };
  expect(devices).toContain('loopback');
  const description = join(unpacked, 'usr/share/vfio-user/50-vfio-user-sriov.json');
  const told = JSON.parse(readFileSync(description, 'utf8')) as { type: string; binary: string };
  expect(told.type).toBe(type);
  expect(list.some((line) => /^-rwx/.test(line) && line.endsWith(` .${told.binary}`))).toBe(true);
  const path = join(folder, 'pf.sock');
  expect(await firstLine('--loopback', `--socket-path=${path}`)).toContain(`ready socket=${path}`);
});

/** What a backend of the unpacked package says first; then it is ended. */
async function firstLine(...args: string[]): Promise<string> {
  const program = join(unpacked, 'usr/bin/vfio-user-sriov');
  const backend = spawn(program, ['serve', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await Promise.race([once(backend.stdout, 'data'), once(backend, 'exit')])) as [
    Buffer | number,
  ];
  backend.kill();
  if (backend.exitCode === null) {
    await once(backend, 'exit');
  }
  return String(line);
}
