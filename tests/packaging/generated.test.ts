// Man pages and completion, read by the programs that they are for.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COMMANDS, PROGRAM } from '../../commands.ts';
import { ensureMachinePackages } from '../lab/machine.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const GENERATE = join(ROOT, 'dist/packaging/generate/main.js');
let folder: string;
let pages: string;

beforeAll(async () => {
  await ensureMachinePackages(['man-db', 'groff-base', 'zsh']);
  folder = mkdtempSync(join(tmpdir(), 'generated-'));
  execFileSync(process.execPath, [GENERATE, folder]);
  pages = join(folder, 'man', 'man1');
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('man pages', () => {
  it('are there for the program and each of its commands', () => {
    const names = Object.keys(COMMANDS).map((name) => `${PROGRAM}-${name}.1`);
    expect(readdirSync(pages).sort()).toEqual([`${PROGRAM}.1`, ...names].sort());
  });

  it('are read without a warning, and have each option', () => {
    const pages = [`${PROGRAM}.1`, ...Object.keys(COMMANDS).map((it) => `${PROGRAM}-${it}.1`)];
    for (const page of pages) {
      const { stderr } = man(page);
      expect(stderr).toBe('');
    }
    const { stdout } = man(`${PROGRAM}-serve.1`);
    expect(stdout).toContain('--socket-group <group>');
    expect(stdout).toContain('vfio-user-sriov serve --loopback --socket-path=/tmp/pf.sock');
    expect(stdout).toContain('default: 64M');
  });

  it('have what stands without a name', () => {
    const text = man(`${PROGRAM}-fault.1`).stdout.replaceAll(/\s+/g, ' ');
    expect(text).toContain(
      'ARGUMENTS action what to do (choices: add, list, clear) what add: the rule',
    );
  });

  function man(page: string): { stdout: string; stderr: string } {
    const env = { ...process.env, LC_ALL: 'C.UTF-8', MANROFFSEQ: '', MANWIDTH: '100' };
    const args = ['--warnings', '-E', 'UTF-8', '-l', '-Tutf8', join(pages, page)];
    const { stdout, stderr } = spawnSync('man', args, { encoding: 'utf8', env });
    // grotty writes bold by escapes.
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
    return { stdout: stdout.replace(/\x1b\[[0-9;]*m|.\x08/g, ''), stderr };
  }
});

it('are shipped by npm as well, which puts the man pages where man finds them', () => {
  const { directories, scripts } = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  ) as { directories: { man: string }; scripts: { prepare: string } };
  expect(scripts.prepare).toContain('packaging/generate/main.js dist/share');
  execFileSync(process.execPath, [GENERATE, 'dist/share'], { cwd: ROOT });
  const list = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  const [{ files }] = JSON.parse(list) as [{ files: { path: string }[] }];
  const shipped = files.map(({ path }) => path);
  expect(shipped).toContain(`${directories.man.slice('./'.length)}/${PROGRAM}-serve.1`);
  expect(shipped).toContain(`dist/share/bash-completion/completions/${PROGRAM}`);
  expect(shipped).toContain('packaging/vfio-user/50-vfio-user-sriov.json');
});

describe('completion in bash', () => {
  it.each([
    [[''], 'serve'],
    [['att'], 'attach-qemu'],
    [['serve', '--socket-g'], '--socket-group='],
    [['qemu', '--topology', '=', 'pc'], 'pcie.0'],
    [['qemu', '--topology', '='], 'root-port'],
    [['serve', '--log-level', 'w'], 'warn'],
    [['serve', '--socket-path', '=', '/etc/pass'], '/etc/passwd'],
    [['trace', '--jso'], '--json'],
    [['privileged', 'op'], 'opener'],
    [['fault', ''], 'clear'],
  ])('of %j gives %s among others', (words, wanted) => {
    expect(bash(words)).toContain(wanted);
  });

  it('gives nothing for a number', () => {
    expect(bash(['serve', '--total-vfs', '='])).toEqual([]);
  });

  function bash(words: readonly string[]): string[] {
    const script = `source "$1"; shift; COMP_WORDS=(${PROGRAM} "$@"); COMP_CWORD=$#
      _vfio_user_sriov; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const file = join(folder, 'bash-completion', 'completions', PROGRAM);
    const output = execFileSync('bash', ['-c', script, 'bash', file, ...words], {
      encoding: 'utf8',
    });
    return output.split('\n').filter((line) => line !== '');
  }
});

describe('completion in zsh', () => {
  /** The helpers of zsh's own completion print what they are given, which they would offer. */
  const zsh = (...words: string[]): string => {
    const script = `_describe() { print -l -- $commands }; _arguments() { print -l -- "$@" }
      source "$1"; shift; words=(${PROGRAM} "$@"); CURRENT=$(( $# + 1 )); _${PROGRAM}`;
    const file = join(folder, 'zsh', 'vendor-completions', `_${PROGRAM}`);
    return execFileSync('zsh', ['-f', '-c', script, 'zsh', file, ...words], { encoding: 'utf8' });
  };

  it('offers commands and their options', () => {
    expect(zsh('')).toContain('attach-qemu:plugs VFs into a QEMU that runs already');
    expect(zsh('qemu', '--')).toContain(':kind:(root-port pcie.0)');
    expect(zsh('fault', '')).toContain('1:action:(add list clear)\n*:file:_files');
    expect(zsh('serve', '--')).toContain('--socket-path=[unix socket for the PF]:path:_files');
  });

  it('is taken by zsh’s own completion', () => {
    const script = `fpath=(${join(folder, 'zsh', 'vendor-completions')} $fpath)
      autoload -Uz compinit && compinit -u -D && print $_comps[${PROGRAM}]`;
    const output = execFileSync('zsh', ['-f', '-c', script], { encoding: 'utf8' });
    expect(output.trim()).toBe(`_${PROGRAM}`);
  });
});
