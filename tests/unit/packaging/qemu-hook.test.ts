// libvirt's hook, as libvirt calls it, with a systemctl that notes what it is asked for.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const HOOK = fileURLToPath(new URL('../../../packaging/libvirt/qemu-hook', import.meta.url));
const PF = '0000:01:00.0';
const BACKEND = `vfio-user-sriov@${PF}.service`;
const GLUE = `vfio-user-sriov-glue@${PF}.service`;
const SHARED = "<access mode='shared'/>";

/** Stands for /run/vfio-user, and is as deep. */
let folder: string;
let hook: string;

beforeEach(() => {
  folder = mkdtempSync('/tmp/qemu-hook-');
  hook = join(folder, 'hook');
  writeFileSync(hook, readFileSync(HOOK, 'utf8').replaceAll('/run/vfio-user', folder));
  program('systemctl', `echo "$@" >>${folder}/asked; [ ! -e ${folder}/fails ] || [ "$1" = stop ]`);
  program('install', 'for last; do :; done; mkdir -p "$last"');
});
afterEach(() => rmSync(folder, { recursive: true }));

function program(name: string, script: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

/** Calls the hook for a domain that has `xml` and the PF. */
function call(domain: string, phase: string, xml: string, pf = PF) {
  const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` };
  const input = `<domain>${xml} ${folder}/${pf}/pf.sock ${folder}/${pf}/pf.sock</domain>\n`;
  const { status, stderr } = spawnSync('sh', [hook, domain, phase, 'begin', '-'], {
    encoding: 'utf8',
    env,
    input,
  });
  return { status, stderr: stderr.trim() };
}

const DONE = { status: 0, stderr: '' };
const note = () => join(folder, PF, 'domain');

/** What systemctl was asked for since the last question. */
function asked(): string[] {
  const file = join(folder, 'asked');
  const lines = existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : [];
  rmSync(file, { force: true });
  return lines;
}

it.each([
  ['a plain one', 'sriov', ''],
  ['one with backslashes', String.raw`a\tb\c`, String.raw`<description>C:\c \n</description>`],
  ['one with blanks and signs', "it's $HOME * `id`", '<title>%s -n</title>'],
])('backend and glue come and go with a domain: %s', (_what, domain, text) => {
  const xml = `${text}${SHARED}`;
  expect(call(domain, 'prepare', xml)).toEqual(DONE);
  expect(asked()).toEqual([`start ${BACKEND}`]);
  expect(readFileSync(note(), 'utf8')).toBe(`${domain}\n`);
  expect(call(domain, 'started', xml)).toEqual(DONE);
  expect(asked()).toEqual([`start ${GLUE}`]);
  expect(call(domain, 'release', xml)).toEqual(DONE);
  expect(asked()).toEqual([`stop ${GLUE} ${BACKEND}`]);
  expect(existsSync(note())).toBe(false);
});

it('a domain without a PF, and a phase that is nothing to it, has nothing happen', () => {
  expect(call('sriov', 'prepare', '', 'no/../where')).toEqual(DONE);
  expect(call('sriov', 'prepare', '', '..')).toEqual(DONE);
  expect(call('sriov', 'stopped', SHARED)).toEqual(DONE);
  expect(asked()).toEqual([]);
});

/** NUMA cells as libvirt writes them, each with what it says of its access. */
const cells = (...access: string[]) =>
  access
    .map((each, id) => `<cell id='${id}' cpus='${id}' memory='262144' unit='KiB'${each}/>\n`)
    .join('');
const DIMM = "<memory model='dimm' access='private'>\n<target>";

it.each([
  ['no cell says', `${SHARED}\n${cells('', '')}`],
  ['each cell says', cells(" memAccess='shared'", " memAccess='shared'")],
  ['its memory device says too', `${SHARED}\n${DIMM.replace('private', 'shared')}`],
])('a domain whose memory is all shared is started: %s', (_who, xml) => {
  expect(call('sriov', 'prepare', xml)).toEqual(DONE);
  expect(asked()).toEqual([`start ${BACKEND}`]);
});

it.each([
  [
    'all of it',
    "<access mode='private'/>",
    'the memory',
    'add <memoryBacking><source type="memfd"/><access mode="shared"/></memoryBacking> to its XML',
  ],
  [
    'a cell of a shared domain',
    `${SHARED}\n${cells('', " memAccess='private'", '')}`,
    'the memory of NUMA cell 1',
    'give that <cell> memAccess="shared"',
  ],
  [
    'a cell that does not say',
    cells(" memAccess='shared'", " memAccess='shared'", ''),
    'the memory of NUMA cell 2',
    'give that <cell> memAccess="shared"',
  ],
  [
    'a memory device',
    `${SHARED}\n${DIMM}`,
    'the memory of a dimm',
    'give that <memory> access="shared"',
  ],
])('private memory is refused, and nothing is started or noted: %s', (_which, xml, what, fix) => {
  expect(call('sriov', 'prepare', xml)).toEqual({
    status: 1,
    stderr: `PF ${PF}: ${what} of domain sriov is private, where no device of another process reaches it; ${fix}`,
  });
  expect(asked()).toEqual([]);
  expect(existsSync(note())).toBe(false);
});

it('a second domain with the PF is refused, and neither that nor its end is felt by the first', () => {
  call(String.raw`a\cb`, 'prepare', SHARED);
  asked();
  expect(call('second', 'prepare', SHARED)).toEqual({
    status: 1,
    stderr: String.raw`PF ${PF}: domain a\cb has it; shut that one down first`,
  });
  expect(call('second', 'release', SHARED)).toEqual(DONE);
  expect(asked()).toEqual([]);
  expect(readFileSync(note(), 'utf8')).toBe('a\\cb\n');
});

it('a backend that does not start is stopped, and its PF free again', () => {
  writeFileSync(join(folder, 'fails'), '');
  const { status, stderr } = call('sriov', 'prepare', SHARED);
  expect(status).toBe(1);
  expect(stderr).toMatch(/^PF 0000:01:00\.0: its backend does not start; see systemctl status/);
  expect(asked()).toEqual([`start ${BACKEND}`, `stop ${BACKEND}`]);
  expect(existsSync(note())).toBe(false);
});
