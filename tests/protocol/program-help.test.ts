// The programs of a clone, as npm's scripts call them: each says how it is used, and what it does not know.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const PROGRAMS = [
  ['npm run lab', 'dist/tests/lab/cli.js'],
  ['npm run guest', 'dist/tests/lab/cli.js guest'],
  ['lab boot', 'dist/tests/lab/cli.js boot'],
  ['npm run test:nested', 'dist/tests/nested/main.js'],
  ['npm run bench', 'dist/tests/bench/main.js'],
  ['npm run demo', 'dist/examples/demo.js'],
  ['npm run demo:qemu', 'dist/examples/demo-qemu.js'],
  ['npm run picture', 'dist/examples/picture.js'],
  ['npm run package:deb', 'packaging/deb/build.mjs'],
] as const;

function run(program: string, ...args: string[]): ReturnType<typeof spawnSync> {
  return spawnSync(process.execPath, [...program.split(' '), ...args], {
    cwd: ROOT,
    encoding: 'utf8',
  });
}

it.each(PROGRAMS)('%s -- --help says how it is used', (_, program) => {
  const { status, stdout, stderr } = run(program, '--help');
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(stdout).toMatch(/^usage: /);
});

it.each(PROGRAMS)(
  '%s refuses an option that it does not know, and says how it is used',
  (_, program) => {
    const { status, stdout, stderr } = run(program, '--no-such-option');
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(/^usage: /m);
  },
);

it('lab module names what is wrong with its folder, in a line', () => {
  const empty = mkdtempSync(join(tmpdir(), 'no-module-'));
  const answers = [['nowhere'], [empty], []].map((folders) => {
    const { status, stderr } = run('dist/tests/lab/cli.js module', ...folders);
    return { status, says: String(stderr).split('\n')[0] };
  });
  rmdirSync(empty);
  expect(answers).toEqual([
    { status: 1, says: 'lab: nowhere: there is nothing at this path; name one that exists' },
    { status: 1, says: expect.stringContaining(`lab: ${empty}: there is no Makefile in it; `) },
    { status: 2, says: 'lab: module takes one FOLDER' },
  ]);
});
