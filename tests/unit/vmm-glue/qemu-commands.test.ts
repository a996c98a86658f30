// The command lines of `qemu`, `qemu-args` and `attach-qemu`.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { describe, expect, it, vi } from 'vitest';
import { serveOptions } from '../../../backend/commands/serve-options.ts';
import { attachQemuCommand } from '../../../vmm-glue/commands/attach-qemu.ts';
import { qemuCommand } from '../../../vmm-glue/commands/qemu.ts';
import { qemuArgsCommand, shellQuoted } from '../../../vmm-glue/commands/qemu-args.ts';

const SOCKETS = ['--socket-path=/run/s/pf.sock', '--vf-sockets=/run/s/vfs'];

async function printed(args: string[]): Promise<string> {
  const write = vi.spyOn(process.stdout, 'write').mockImplementation(() => true);
  try {
    await qemuArgsCommand().parseAsync(args, { from: 'user' });
    return write.mock.calls.map(([text]) => String(text)).join('');
  } finally {
    write.mockRestore();
  }
}

/** As it stands in an attribute. */
const json = (text: string): string => text.replaceAll('"', '&quot;');

const quiet = (command: Command): Command =>
  command.exitOverride().configureOutput({ writeErr: () => {} });

describe('qemu-args', () => {
  it('prints a JSON array of the QMP socket and the devices', async () => {
    const args = JSON.parse(await printed([...SOCKETS, '--total-vfs=2', '--json'])) as string[];
    expect(args.slice(0, 2)).toEqual(['-qmp', 'unix:/run/s/qmp.sock,server=on,wait=off']);
    const ids = args.filter((each) => each.startsWith('{')).map((each) => JSON.parse(each).id);
    expect(ids).toEqual([
      ...['sriov-port0', 'sriov-pf0', 'sriov-pf0-vf0', 'sriov-pf0-vf1'],
      ...['sriov-carriers0', 'sriov-carriers0-port0'],
    ]);
  });

  it('has nothing for carriers where VFs are to be trapped, or there is no room for more', async () => {
    const said = vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
    const trapped = await printed([...SOCKETS, '--vf-memory=trapped']);
    expect(said.mock.calls).toEqual([]);
    const fourth = await printed([...SOCKETS, '--index=3']);
    expect(String(said.mock.calls)).toContain('stay trapped: QEMU has bus numbers for');
    const most = await printed([...SOCKETS, '--topology=pcie.0', '--total-vfs=239']);
    expect(String(said.mock.calls)).toContain('stay trapped: PF and VFs leave no device number');
    said.mockRestore();
    expect(`${trapped}${fourth}${most}`).not.toContain('pxb-pcie');
  });

  it('has no expander bus for a virt, and ports for carriers all the same', async () => {
    const virt = await printed([...SOCKETS, '--machine=virt']);
    expect(virt).toContain('"id":"sriov-carriers0-port0","bus":"pcie.0"');
    expect(virt).not.toContain('pxb-pcie');
  });

  it('leaves carriers out of what libvirt gets, unless they are asked for', async () => {
    const libvirt = [...SOCKETS, '--libvirt'];
    expect(await printed(libvirt)).not.toContain('pxb-pcie');
    expect(await printed([...libvirt, '--vf-memory=mapped'])).toContain('pxb-pcie');
  });

  it('prints lines that a shell reads back as they are', async () => {
    const lines = await printed([...SOCKETS, '--total-vfs=1']);
    const json = JSON.parse(await printed([...SOCKETS, '--total-vfs=1', '--json'])) as string[];
    const script = `printf '%s\\n' ${lines}`;
    const readBack = execFileSync('/bin/sh', ['-c', script], { encoding: 'utf8' });
    expect(readBack.trimEnd().split('\n')).toEqual(json);
    const evaluated = execFileSync('/bin/sh', ['-c', `eval "printf '%s\\n' $LINES"`], {
      encoding: 'utf8',
      env: { LINES: lines },
    });
    expect(evaluated).toBe(readBack);
  });

  it('takes everything from the backend’s ready line', async () => {
    const ready =
      'ready socket=/run/s/pf.sock vf-sockets=/run/s/vfs total-vfs=3 vf-bars=0:67108864:64p';
    const args = JSON.parse(await printed([`--ready=${ready}`, '--json'])) as string[];
    expect(args.filter((each) => each === '-device')).toHaveLength(7);
    expect(args.join(' ')).toContain('"pref64-reserve":268435456');
  });

  it('adds shared guest RAM when asked to, and patience for mapping it', async () => {
    const args = await printed([...SOCKETS, '--memory=2G']);
    expect(args.split(' \\\n').slice(0, 6)).toEqual([
      '-m',
      '2048M',
      '-object',
      'memory-backend-memfd,id=sriov-ram,size=2048M,share=on',
      '-machine',
      'memory-backend=sriov-ram',
    ]);
    expect(args).toContain('"x-msg-timeout":20000');
  });

  it('puts devices where it is told to', async () => {
    const args = await printed([...SOCKETS, '--topology=pcie.0', '--bus-address=8', '--index=1']);
    expect(args).toContain('"id":"sriov-pf1","bus":"pcie.0","addr":"8.0"');
  });

  it('prints what libvirt passes on, escaped, at a place of its own and without memory', async () => {
    const sockets = ["--socket-path=/run/a&b/<pf>'s", '--vf-sockets=/run/s/vfs'];
    const text = await printed([...sockets, '--total-vfs=1', '--memory=2G', '--libvirt']);
    expect(text).toBe(
      '<qemu:commandline xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">\n' +
        [
          '-qmp',
          'unix:/run/a&amp;b/qmp.sock,server=on,wait=off',
          '-device',
          json(
            '{"driver":"pcie-root-port","id":"sriov-port0","bus":"pcie.0","addr":"10.0","chassis":128,"slot":1,"hotplug":false,"pref64-reserve":2097152}',
          ),
          '-device',
          json(
            '{"driver":"vfio-user-pci","id":"sriov-pf0","bus":"sriov-port0","addr":"0.0","multifunction":true,"socket":{"type":"unix","path":"/run/a&amp;b/&lt;pf&gt;&apos;s"},"x-msg-timeout":20000}',
          ),
          '-device',
          json(
            '{"driver":"vfio-user-pci","id":"sriov-pf0-vf0","bus":"sriov-port0","addr":"0.1","multifunction":true,"socket":{"type":"unix","path":"/run/s/vfs/vf0.sock"},"x-msg-timeout":20000}',
          ),
        ]
          .map((value) => `  <qemu:arg value="${value}"/>\n`)
          .join('') +
        '</qemu:commandline>\n',
    );
  });

  it('prints what the domain of examples/libvirt has, where it is called as the page beside it tells', async () => {
    const read = (name: string) =>
      readFileSync(new URL(`../../../examples/libvirt/${name}`, import.meta.url), 'utf8');
    const [, pf] = /^ *pf=(\S+)$/m.exec(read('README.md'))!;
    const [, told] = /vfio-user-sriov qemu-args (.*?\S)\n *```/s.exec(read('README.md'))!;
    const args = told!.replaceAll('$pf', pf!).split(/[\s\\]+/);
    const [, domain] = /<qemu:commandline>\n(.*)<\/qemu:commandline>/s.exec(read('domain.xml'))!;
    const values = (xml: string) =>
      [...xml.matchAll(/<qemu:arg value="(.*)"\/>/g)].map(([, it]) => it);
    expect(values(domain!)).toEqual(values(await printed(args)));
  });

  it('refuses a path that XML cannot hold', async () => {
    const sockets = ['--socket-path=/run/\u0001/pf.sock', '--vf-sockets=/run/s/vfs'];
    await expect(printed([...sockets, '--libvirt'])).rejects.toThrow('XML cannot hold it');
  });

  it.each([
    [[], 'the sockets of the backend are not known'],
    [[...SOCKETS, '--total-vfs=256'], 'use fewer VFs'],
    [[...SOCKETS, '--vf-bar-size=1000'], 'describes no BAR'],
    [[...SOCKETS, '--index=128'], '--index=0 to 127'],
    [[`--socket-path=/run/${'x'.repeat(103)}`, SOCKETS[1]!], 'longer than the 107 bytes'],
    [[SOCKETS[0]!, `--vf-sockets=/run/${'x'.repeat(93)}`, '--total-vfs=11'], 'vf10.sock: longer'],
    [[...SOCKETS, '--memory=lots'], '--memory=lots'],
    [['--ready=hello'], 'not what a backend prints'],
  ])('refuses %j', async (args, message) => {
    await expect(printed(args)).rejects.toMatchObject({
      exitCode: 2,
      message: expect.stringContaining(message),
    });
  });
});

describe('unknown and missing options', () => {
  it.each([
    [() => qemuCommand(serveOptions()), ['--loopbak', '--', 'qemu'], 'commander.unknownOption'],
    [() => qemuCommand(serveOptions()), ['--loopback'], 'commander.missingArgument'],
    [
      () => qemuCommand(serveOptions()),
      ['--topology=ring', '--', 'qemu'],
      'commander.invalidArgument',
    ],
    [qemuArgsCommand, ['--sockets=/x'], 'commander.unknownOption'],
    [qemuArgsCommand, ['--total-vfs=x'], 'commander.invalidArgument'],
    [attachQemuCommand, ['--qmp=/x'], 'commander.missingMandatoryOptionValue'],
    [attachQemuCommand, ['--socket-path=/x'], 'commander.missingMandatoryOptionValue'],
  ])('are refused', async (make, args, code) => {
    await expect(quiet(make()).parseAsync(args, { from: 'user' })).rejects.toMatchObject({ code });
  });
});

it.each([
  [['--socket-group=kvm'], '--socket-group'],
  [['--socket-mode=0666'], '--socket-mode'],
])('qemu refuses %j where the socket is in its own private folder', async (args, name) => {
  const command = quiet(qemuCommand(serveOptions()));
  await expect(
    command.parseAsync(['--loopback', ...args, '--', 'qemu'], { from: 'user' }),
  ).rejects.toThrow(`${name}: the socket is in a folder of this user alone; give --socket-path`);
});

describe('attach-qemu', () => {
  it('names the QMP socket that is not there, and how to get one', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'attach-'));
    const qmp = join(folder, 'qmp');
    const args = [`--qmp=${qmp}`, '--socket-path=/nowhere/pf', '--log-level=silent'];
    try {
      const attached = attachQemuCommand().parseAsync(args, { from: 'user' });
      await expect(attached).rejects.toMatchObject({
        what: `QMP socket ${qmp}: no such socket`,
        fix: 'start QEMU with -qmp unix:PATH,server=on,wait=off',
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

it('quotes for a shell only what needs it', () => {
  expect(shellQuoted('a=b,c:/d-e.f')).toBe('a=b,c:/d-e.f');
  expect(shellQuoted(`{"a":"it's"}`)).toBe(`'{"a":"it'\\''s"}'`);
  expect(shellQuoted('')).toBe(`''`);
});
