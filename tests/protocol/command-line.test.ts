// The program as a person meets it: mistakes on the command line are one line on standard error, with what to do.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { COMMANDS } from '../../commands.ts';
import { LONGEST_MILLISECONDS } from '../../protocol/launch/option-values.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const SERVE = ['serve', '--loopback', '--socket-path=/tmp/never-made.sock'];

function run(...args: string[]) {
  return spawnSync(process.execPath, [CLI, ...args], {
    encoding: 'utf8',
    timeout: 10_000,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

describe('a mistake on the command line', () => {
  it.each([
    ['an unknown command', ['bogus'], "unknown command 'bogus'; see vfio-user-sriov --help"],
    ['help for an unknown command', ['help', 'bogus'], "unknown command 'bogus'; see"],
    ['an unknown option', ['serve', '--bogus'], "'--bogus'; see vfio-user-sriov serve --help"],
    ['an option that is nearly right', ['serve', '--total-vf=3'], 'Did you mean --total-vfs?'],
    [
      'an option that is nearly right, with a value',
      ['serve', '--socket-pth=/tmp/pf.sock'],
      'Did you mean --socket-path?',
    ],
    ['a value for an option that has none', [...SERVE, '--loopback=yes'], "'--loopback=yes'"],
    [
      'a missing option that is there, misspelt',
      ['probe', '--pg=0000:01:00.0'],
      "'--pg' (Did you mean --pf?); required option '--pf <address>' not specified; see",
    ],
    ['standard input, and a missing option', ['profile', '-'], ": required option '--output"],
    ['an argument too many', [...SERVE, 'extra'], 'see vfio-user-sriov serve --help'],
    ['a socket without its option', ['status', '/tmp/pf.sock'], 'comes after --socket-path='],
    ['an option without its value', ['serve', '--socket-path'], "'--socket-path <path>'"],
    ['a missing option', ['attach-qemu'], "'--qmp <path>' not specified"],
    [
      'a missing socket',
      ['fault', 'list'],
      '`vfio-user-sriov status` names those of running backends',
    ],
    ['two sockets', [...SERVE, '--fd=3'], '--socket-path and --fd exclude each other'],
    ['two devices', [...SERVE, '--device=nvme'], '--loopback and --device exclude each other'],
    ['no socket', ['serve', '--loopback'], 'give --socket-path=PATH'],
    ['no device', ['serve', '--socket-path=/tmp/x'], 'give --loopback'],
    ['no VFs at all', [...SERVE, '--total-vfs=0'], '1 to 255'],
    ['a word for a number', [...SERVE, '--total-vfs=many'], '1 to 255'],
    ...['--plug-timeout', '--unplug-timeout'].map((option): [string, string[], string] => [
      `a ${option} that no timer takes`,
      [...SERVE, `${option}=${LONGEST_MILLISECONDS + 1}`],
      `1 to ${LONGEST_MILLISECONDS}`,
    ]),
    ...['--watch', '--timeout'].map((option): [string, string[], string] => [
      `a ${option} that no timer takes`,
      ['status', `${option}=${LONGEST_MILLISECONDS + 1}`],
      `to ${LONGEST_MILLISECONDS}`,
    ]),
    ['a VF BAR that is no power of two', [...SERVE, '--vf-bar-size=3K'], 'power of two'],
    ['an unknown log level', [...SERVE, '--log-level=loud'], 'debug, info, warn'],
    [
      'a container for a loopback device',
      [...SERVE, '--container=shared'],
      '--container goes with --pf, but --loopback was given',
    ],
    [
      'a delay for a physical function',
      ['serve', '--pf=01:00.0', '--socket-path=/tmp/x', '--enable-delay=1'],
      '--enable-delay goes with --loopback, but --pf was given',
    ],
    ['an address that is none', ['serve', '--pf=junk', '--socket-path=/tmp/x'], 'lspci -D'],
    [
      'a file for a socket',
      ['serve', '--loopback', '--fd=0'],
      '--fd=0: it is not an open unix stream socket',
    ],
    ['a path that is no UTF-8', ['serve', '--loopback', '--socket-path=/tmp/\ufffd'], 'in UTF-8'],
    ['an fd that is not open', ['serve', '--loopback', '--fd=99'], 'one that listens'],
    ['no QEMU to start', ['qemu', '--loopback'], 'see vfio-user-sriov qemu --help'],
    ["QEMU's arguments for ours", ['qemu', '--loopback', '-m', '1G'], 'arguments come after --'],
  ])('%s is told in one line', (_what, args, text) => {
    const { status, stdout, stderr } = run(...args);
    expect(status).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^vfio-user-sriov: [^\n]+\n$/);
    expect(stderr).toContain(text);
  });

  it.each([
    ['a physical function that is not there', ['--pf=ffff:ff:1f.7', '--socket-path=/tmp/x']],
    ['a folder that is not there', ['--loopback', '--socket-path=/nowhere/pf.sock']],
    ['a folder that cannot be made', [...SERVE.slice(1), '--vf-sockets=/proc/nowhere/vfs']],
    ['a folder for a socket', ['--loopback', '--socket-path=/tmp']],
    ['a path too long for a socket', ['--loopback', `--socket-path=/tmp/${'x'.repeat(200)}`]],
  ])('%s is told in one line, too, without a stack', (_what, args) => {
    const { status, stderr } = run('serve', ...args);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^vfio-user-sriov: [^\n;]+; [^\n;]+\n$/);
  });

  it.each([
    ['serve', '--loopback', '--socket-path=/tmp/never-made.sock', '--trace=/nowhere/file'],
    ['serve', '--device=nvme', '--socket-path=/tmp/never-made.sock', '--namespace=/nowhere/file'],
    ['serve', '--loopback', '--socket-path=/tmp/never-made.sock', '--log-file=/nowhere/file'],
    ['serve', '--loopback', '--socket-path=/tmp/never-made.sock', '--profile=/nowhere/file'],
    ['trace', '/nowhere/file'],
    ['replay', '/nowhere/file', '--socket-path=/tmp/never-made.sock'],
    ['profile', '/nowhere/file', '--output=/tmp/never-made.json'],
    ['report', '--output=/nowhere/file'],
  ])('%s %s %s %s: a file that cannot be opened is told as every call is', (...args) => {
    const { status, stderr } = run(...args);
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /^vfio-user-sriov: (--[a-z-]+(: |=))?(\S+: )?open \/nowhere\/file: no such file or directory \(ENOENT\); [^\n]+\n$/,
    );
  });
});

describe('help', () => {
  it('loads none of the subcommands', () => {
    const count =
      'process.on("exit",()=>console.error(process.report.getReport().sharedObjects.filter((path)=>path.includes("koffi")).length))';
    const loaded = (...args: string[]): number =>
      Number(
        spawnSync(process.execPath, ['--import', `data:text/javascript,${count}`, CLI, ...args], {
          encoding: 'utf8',
          timeout: 10_000,
        }).stderr,
      );
    expect(loaded('--help')).toBe(0);
    expect(loaded('serve', '--help')).toBeGreaterThan(0);
  });

  it('of a subcommand is had in either way', () => {
    expect(run('help', 'status').stdout).toBe(run('status', '--help').stdout);
  });

  it('has a line for each command', () => {
    const { status, stdout } = run('--help');
    expect(status).toBe(0);
    expect(stdout.split('Examples:')[1]).not.toMatch(/…|\.\.\./);
    for (const name of Object.keys(COMMANDS)) {
      expect(stdout).toMatch(new RegExp(`^  ${name} .*  [a-z]`, 'm'));
    }
  });

  it('of the launcher says what serve makes of what is not given', () => {
    const page = run('qemu', '--help').stdout.replace(/\s+/g, ' ');
    expect(page).toContain('may take to attach VFs (default: 10000)');
    expect(page).toContain('the newest is kept (default: 64M)');
    expect(page).toContain('(choices: shared, per-function)');
  });

  it.each(Object.keys(COMMANDS))('%s has a page of its own', (name) => {
    const { status, stdout } = run(name, '--help');
    expect(status).toBe(0);
    expect(stdout).toContain(`Usage: vfio-user-sriov ${name} `);
    expect(stdout).not.toMatch(/default: \d{6}/);
    const [page, example] = stdout.split(/\nExamples?:\n/);
    expect(example).toContain(`vfio-user-sriov ${name} `);
    const [own] = example!.split(`vfio-user-sriov ${name} `)[1]!.split(' -- ');
    for (const [option] of own!.matchAll(/--[a-z-]+/g)) {
      expect(page).toMatch(new RegExp(`^ +${option}\\b`, 'm'));
    }
    expect(example).not.toMatch(/…|\.\.\./);
  });
});
