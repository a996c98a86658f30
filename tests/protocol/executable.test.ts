// What npm puts on the PATH, in a folder where the program behind it is not whole.

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'executable-'));
  mkdirSync(join(folder, 'bin'));
  mkdirSync(join(folder, 'dist'));
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  copyFileSync(join(ROOT, 'bin/vfio-user-sriov.js'), join(folder, 'bin/vfio-user-sriov.js'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** What it says, and its exit status. */
function run(): [string, number | null] {
  const { stderr, status } = spawnSync(
    process.execPath,
    [join(folder, 'bin/vfio-user-sriov.js'), '--version'],
    { encoding: 'utf8', timeout: 10_000 },
  );
  return [stderr.replaceAll(folder, 'HERE'), status];
}

it('says how to build it', () => {
  expect(run()).toEqual([
    'vfio-user-sriov: HERE/ is not built yet; in there run: npm ci && npm run build\n',
    1,
  ]);
});

it.each([
  [
    'half built',
    "import { nothing } from 'node:fs';",
    /nothing.*; wait for the build .*run build$/,
  ],
  [
    'not to be opened',
    "throw Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' });",
    /too many open files; raise the limit of open files \(ulimit -n\)$/,
  ],
])('says in one line that the program is %s', (_what, program, line) => {
  writeFileSync(join(folder, 'dist/cli.js'), program);
  const [said, status] = run();
  expect(said).toMatch(/^vfio-user-sriov: HERE\/ cannot be loaded: [^\n]+\n$/);
  expect(said.trimEnd()).toMatch(line);
  expect(status).toBe(1);
});
