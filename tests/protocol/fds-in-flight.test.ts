// The kernel sends no more fds for a user than the sender may have open (unix(7), ETOOMANYREFS) while nobody takes them.
// Privileged users are exempt, so the backend runs without that privilege; and as a user of its own where it can, because
// whatever else a user has in flight counts as well.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { closeFd } from '../../protocol/unix/libc.ts';
import { createMemfd } from '../../protocol/unix/memory.ts';
import { Command, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { RegionInfo } from '../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../protocol/vfio-user/version.ts';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { SOON } from '../patience.ts';
import { expectErrno } from './backend.ts';
import { RawPeer } from './raw-peer.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
/** Enough for a backend with two clients, and fewer than there are replies in a full socket. */
const OPEN_FILES = 64;
const QUESTIONS = 200;
const PAGE = 4096;
const UNPRIVILEGED = [
  'setpriv',
  `--reuid=${1_000_000 + process.pid}`,
  '--clear-groups',
  '--bounding-set=-sys_resource,-sys_admin',
  // To read the program and to make its socket, whoever owns the folders.
  '--inh-caps=-all,+dac_override',
  '--ambient-caps=+dac_override',
  '--',
];
/** BAR 0, which has an fd; with room for what is to be said of it. */
const QUESTION = RegionInfo.encode({
  argsz: 4096,
  flags: 0,
  index: RegionIndex.bar0,
  capOffset: 0,
  size: 0n,
  offset: 0n,
});

let folder: string;
let path: string;
let backend: ChildProcess;
let log: Promise<string>;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'in-flight-'));
  path = join(folder, 'pf.sock');
  const [program = '', ...args] = [
    ...(process.geteuid?.() === 0 ? UNPRIVILEGED : []),
    ...['prlimit', `--nofile=${OPEN_FILES}`, '--'],
    ...[process.execPath, CLI, 'serve', '--loopback', `--socket-path=${path}`],
  ];
  backend = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  log = text(backend.stderr!);
  await once(backend.stdout!, 'data');
});
afterEach(() => {
  backend.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

it('a reply whose fd the kernel does not send ends the session, and none before it is lost', async () => {
  const silent = RawPeer.connectWithoutReading(path);
  silent.send(Command.version, encodeVersion(0, 1, { max_msg_fds: 16 }), { id: 0 });
  for (let id = 1; id <= QUESTIONS; id++) {
    silent.send(Command.deviceGetRegionInfo, QUESTION, { id });
  }
  using observer = await VfioUserClient.connect(path, {
    capabilities: { sriov_status: { version: 1 } },
  });
  const clients = async () => (await observer.getStatus()).clients;
  await expect.poll(clients, SOON).toEqual([expect.objectContaining({ role: 'observer' })]);

  silent.startReading();
  expect(await silent.closes()).toBe(true);
  const answers: { id: number; fds: number }[] = [];
  while (silent.waiting > 0) {
    const { id, fds } = await silent.next();
    fds.forEach(closeFd);
    answers.push({ id, fds: fds.length });
  }
  silent.close();
  expect(answers.length).toBeGreaterThan(OPEN_FILES / 2);
  expect(answers.length).toBeLessThan(QUESTIONS);
  expect(answers).toEqual(answers.map((_, id) => ({ id, fds: id === 0 ? 0 : 1 })));

  backend.kill('SIGTERM');
  expect(await log).toMatch(
    /sendmsg: refused \(ETOOMANYREFS\); raise [^"]+; closing the connection/,
  );
});

it('a DMA_MAP for which the backend has too few fds is refused by EMFILE, and leaves nothing behind', async () => {
  const client = await VfioUserClient.connect(path);
  const files: number[] = [];
  const mapNext = (): Promise<void> => {
    const at = files.length;
    files.push(createMemfd('guest', PAGE));
    return client.mapDma({ address: BigInt(at * PAGE), size: BigInt(PAGE), fd: files[at]! });
  };
  const mapAll = async (): Promise<void> => {
    while (files.length < OPEN_FILES) {
      await mapNext();
    }
  };
  await expectErrno(mapAll(), 'EMFILE');
  const refused = BigInt((files.length - 1) * PAGE);
  await client.unmapDma(0n, BigInt(PAGE));
  await client.mapDma({ address: refused, size: BigInt(PAGE), fd: files.at(-1)! });
  client.close();
  files.forEach(closeFd);

  backend.kill('SIGTERM');
  expect(await log).toMatch(/DMA_MAP: fcntl: too many open files \(EMFILE\); raise/);
  expect(await log).not.toContain('a fault of this program');
});
