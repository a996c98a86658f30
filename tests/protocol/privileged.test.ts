// Root's opener and writer as processes of their own, and what backends can do to them. The host is made up: its groups are
// files that one process at a time has open.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  decodeReply,
  encodeReply,
  MESSAGE_VERSION,
  Operation,
  REPLY_BYTES,
  Request,
} from '../../backend/devices/vfio/privileged/messages.ts';
import {
  OPENER_SOCKET,
  PrivilegedHost,
  WRITER_SOCKET,
} from '../../backend/devices/vfio/privileged/privileged-host.ts';
import type { NumVfs } from '../../backend/devices/vfio/vfs/numvfs-writer.ts';
import { Errno } from '../../protocol/errno.ts';
import { acceptUnix, connectUnix } from '../../protocol/unix/fd-socket.ts';
import { closeFd, ErrnoNumber } from '../../protocol/unix/libc.ts';
import { listenUnix } from '../../protocol/unix/listener.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { SocketBuffer } from '../../protocol/unix/socket-buffer.ts';
import { watchFd } from '../../protocol/unix/watch-fd.ts';
import { FakeVfioHost, PF, TOTAL_VFS } from '../fakes/vfio-host.ts';
import { SOON } from '../patience.ts';

const PROGRAM = fileURLToPath(
  new URL('../../dist/tests/fakes/privileged-program.js', import.meta.url),
);
/** The groups of the two VFs, and of the PF. */
const [VF0, VF1, OF_PF] = ['20', '21', '7'];
const OWN_USER = process.getuid!();

let host: FakeVfioHost;
let children: ChildProcess[];
let root: PrivilegedHost;
let numVfs: NumVfs;

function makeHost(): void {
  host = new FakeVfioHost();
  host.setVfs(2);
  host.write(`${host.functionFolder(PF)}/sriov_numvfs`, '2');
  host.addFunction('0000:02:00.0', '30');
  children = [];
  root = new PrivilegedHost(host.folder, processClock);
  numVfs = root.numVfs('sriov_numvfs');
}

async function removeHost(): Promise<void> {
  await Promise.all(children.map(end));
  host.remove();
}

async function end(child: ChildProcess): Promise<void> {
  if (child.kill('SIGKILL')) {
    await once(child, 'exit');
  }
}

/** Starts a program; gives its pid when it has said what it is. */
async function start(expected: string, ...args: string[]): Promise<number> {
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const [said] = (await once(child.stdout, 'data')) as [Buffer];
  expect(String(said).trim()).toBe(expected);
  return child.pid!;
}

const socketOf = (name: string) => join(host.folder, name);
const startOpener = (user = OWN_USER) =>
  start('ready', 'opener', host.folder, socketOf(OPENER_SOCKET), String(user));
const startWriter = (user = OWN_USER) =>
  start('ready', 'writer', host.folder, socketOf(WRITER_SOCKET), String(user));
const written = () =>
  readFileSync(join(host.folder, host.functionFolder(PF), 'sriov_numvfs'), 'utf8');
/** Paths of the host that a process has open. */
const filesOf = (pid: number) =>
  readdirSync(`/proc/${pid}/fd`)
    .map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
    .filter((path) => path.startsWith(`${host.folder}/`));

/** It closes what it has sent after we have it. */
const keepsNothing = (pid: number) => vi.waitFor(() => expect(filesOf(pid)).toEqual([]), SOON);
const openFds = (pid: number) => readdirSync(`/proc/${pid}/fd`).length;

const buffer = new SocketBuffer(REPLY_BYTES, 4);

/** Connects and sends bytes, with fds; reads nothing. */
function sendTo(socket: string, bytes: Uint8Array, fds: readonly number[] = []): number {
  const fd = connectUnix(socketOf(socket));
  buffer.data.set(bytes);
  buffer.send(fd, 0, bytes.length, fds);
  return fd;
}

/** What comes back, or the end of the connection; read until then. */
async function answerOn(fd: number): Promise<number | 'closed'> {
  const length = await untilNot(-ErrnoNumber.EAGAIN, () => buffer.receive(fd));
  for (const each of buffer.fds) {
    closeFd(each);
  }
  closeFd(fd);
  return length === REPLY_BYTES ? decodeReply(buffer.data).errno : 'closed';
}

/** Asks again until the answer is another one. */
async function untilNot<T>(answer: T, ask: () => T | Promise<T>): Promise<T> {
  for (;;) {
    const given = await ask();
    if (given !== answer) {
      return given;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function request(fields: Partial<{ version: number; operation: number; argument: number }>) {
  const usual = { version: MESSAGE_VERSION, operation: Operation.openGroup, argument: 0 };
  return Request.encode({ ...usual, ...fields });
}

describe('a VF', () => {
  beforeEach(makeHost);
  afterEach(removeHost);

  it('is handed over, once at a time, and the opener keeps nothing of it', async () => {
    const opener = await startOpener();
    await startWriter();
    const fd = await root.openGroup(VF0);
    expect(readlinkSync(`/proc/self/fd/${fd}`)).toBe(join(host.folder, 'dev/vfio/20'));
    await keepsNothing(opener);
    expect(await root.openGroup(VF0)).toBe(-Errno.EBUSY);
    expect(await numVfs.write(0)).toBe(Errno.EBUSY);
    expect(written()).toBe('2');
    closeFd(fd);
    expect(await numVfs.write(0)).toBe(0);
    expect(written()).toBe('0');
  });

  it('that another process holds is named by the eyes of root', async () => {
    await startOpener();
    host.write('proc/42/comm', 'qemu\n');
    host.link('proc/42/fd/3', '/dev/vfio/20');
    expect(await root.holderOf(VF0)).toBe('pid 42 (qemu)');
  });

  it('of a PF that another driver has taken is left alone', async () => {
    await startWriter();
    host.link(`${host.functionFolder(PF)}/driver`, '../../../../bus/pci/drivers/igb');
    expect(await numVfs.write(0)).toBe(Errno.ENODEV);
    expect(written()).toBe('2');
  });
});

describe('a backend', () => {
  beforeEach(makeHost);
  afterEach(removeHost);

  it('that never reads holds its VF, keeps nobody waiting, and is not believed', async () => {
    const opener = await startOpener();
    await startWriter();
    const silent = sendTo(OPENER_SOCKET, request({ argument: Number(VF0) }));
    // In the message that waits for it.
    expect(await untilNot(0, () => numVfs.write(2).then(() => numVfs.write(0)))).toBe(Errno.EBUSY);
    await keepsNothing(opener);
    expect(written()).toBe('2');
    const other = await root.openGroup(VF1);
    expect(other).toBeGreaterThan(0);
    closeFd(other);
    closeFd(silent);
    expect(await numVfs.write(0)).toBe(0);
  });

  it('under SIGSTOP holds its VF, keeps nobody waiting, and no 0 is written until it has ended', async () => {
    await startOpener();
    await startWriter();
    const pid = await start('open', 'backend', host.folder, host.folder, VF0);
    process.kill(pid, 'SIGSTOP');
    expect(await numVfs.write(0)).toBe(Errno.EBUSY);
    expect(written()).toBe('2');
    expect(await root.openGroup(VF0)).toBe(-Errno.EBUSY);
    process.kill(pid, 'SIGKILL');
    expect(await untilNot(Errno.EBUSY, () => numVfs.write(0))).toBe(0);
    expect(written()).toBe('0');
  });

  it('of another user is refused', async () => {
    await startOpener(OWN_USER + 1);
    await startWriter(OWN_USER + 1);
    expect(await root.openGroup(VF0)).toBe(-Errno.EPERM);
    expect(await numVfs.write(0)).toBe(Errno.EPERM);
    expect(written()).toBe('2');
  });

  it('is told how to start what is not there', async () => {
    await expect(numVfs.read()).rejects.toThrow(
      /connect .*writer\.sock: root’s process does not listen there for this user; start/,
    );
  });
});

describe('a process of root’s', () => {
  beforeEach(makeHost);
  afterEach(removeHost);

  /** One that gives each client these bytes, and ends. */
  function answering(bytes: Uint8Array): () => void {
    const { fd } = listenUnix(socketOf(WRITER_SOCKET));
    const stop = watchFd(fd, () => {
      const client = acceptUnix(fd);
      buffer.data.set(bytes);
      buffer.send(client, 0, bytes.length);
      closeFd(client);
    });
    return () => {
      stop();
      closeFd(fd);
    };
  }

  it('that ends without a whole answer is told as that', async () => {
    const stop = answering(new Uint8Array(REPLY_BYTES - 1));
    await expect(numVfs.read()).rejects.toThrow('root’s process ended without an answer');
    stop();
  });

  it.each([
    ['says so', { version: 2, errno: 0 }],
    ['refuses ours', { version: MESSAGE_VERSION, errno: Errno.EPROTO }],
  ])('of another version, which %s, is told with the fix', async (_how, said) => {
    const bytes = new Uint8Array(REPLY_BYTES);
    encodeReply({ operation: Operation.readNumVfs, value: 0, text: '', ...said }, bytes);
    const stop = answering(bytes);
    await expect(numVfs.read()).rejects.toThrow(
      'root’s process is of another version of this program; start both anew, from one version',
    );
    stop();
  });
});

describe('every field of a request that is wrong', () => {
  let pids: Record<string, number>;
  beforeAll(async () => {
    makeHost();
    pids = { [OPENER_SOCKET]: await startOpener(), [WRITER_SOCKET]: await startWriter() };
  });
  afterAll(removeHost);

  const WRITE = Operation.writeNumVfs;
  const READ = Operation.readNumVfs;
  const USEFUL: Record<string, Uint8Array> = {
    [OPENER_SOCKET]: request({ argument: Number(VF1) }),
    [WRITER_SOCKET]: request({ operation: READ }),
  };
  it.each([
    ['version 0', OPENER_SOCKET, request({ version: 0 }), Errno.EPROTO],
    ['version 2', WRITER_SOCKET, request({ version: 2, operation: READ }), Errno.EPROTO],
    ['version 65535', OPENER_SOCKET, request({ version: 0xffff }), Errno.EPROTO],
    ['operation 0', OPENER_SOCKET, request({ operation: 0 }), Errno.EINVAL],
    ['operation 6', WRITER_SOCKET, request({ operation: 6 }), Errno.EINVAL],
    ['operation 65535', OPENER_SOCKET, request({ operation: 0xffff }), Errno.EINVAL],
    [
      'the writer’s, asked of the opener',
      OPENER_SOCKET,
      request({ operation: WRITE }),
      Errno.EINVAL,
    ],
    ['the opener’s, asked of the writer', WRITER_SOCKET, request({}), Errno.EINVAL],
    ['the group of the PF', OPENER_SOCKET, request({ argument: Number(OF_PF) }), Errno.ENODEV],
    ['the group of another card', OPENER_SOCKET, request({ argument: 30 }), Errno.ENODEV],
    ['no group', OPENER_SOCKET, request({ argument: 0 }), Errno.ENODEV],
    ['group 4294967295', OPENER_SOCKET, request({ argument: 0xffff_ffff }), Errno.ENODEV],
    [
      'a binding of another card',
      OPENER_SOCKET,
      request({ operation: Operation.bindVf, argument: 30 }),
      Errno.ENODEV,
    ],
    [
      'the holder of another card',
      OPENER_SOCKET,
      request({ operation: Operation.nameHolder, argument: 30 }),
      Errno.ENODEV,
    ],
    [
      'a read with an argument',
      WRITER_SOCKET,
      request({ operation: READ, argument: 1 }),
      Errno.EINVAL,
    ],
    [
      'more VFs than there are',
      WRITER_SOCKET,
      request({ operation: WRITE, argument: TOTAL_VFS + 1 }),
      Errno.ERANGE,
    ],
    [
      '4294967295 VFs',
      WRITER_SOCKET,
      request({ operation: WRITE, argument: 0xffff_ffff }),
      Errno.ERANGE,
    ],
    ['a byte too many', OPENER_SOCKET, new Uint8Array(Request.size + 1).fill(1), Errno.EINVAL],
    ['two requests', WRITER_SOCKET, new Uint8Array(2 * Request.size).fill(1), Errno.EINVAL],
  ])('%s: is refused, and the process goes on', async (_what, socket, bytes, errno) => {
    const files = openFds(pids[socket]!);
    expect(await answerOn(sendTo(socket, bytes))).toBe(errno);
    expect(await answerOn(sendTo(socket, USEFUL[socket]!))).toBe(0);
    await vi.waitFor(() => expect(openFds(pids[socket]!)).toBe(files), SOON);
    expect(written()).toBe('2');
  });

  it.each([
    ['files that nobody asked for', [0, 0]],
    ['one file', [0]],
  ])('%s: refused, and closed', async (_what, fds) => {
    const files = openFds(pids[OPENER_SOCKET]!);
    const answer = await answerOn(sendTo(OPENER_SOCKET, request({ argument: Number(VF0) }), fds));
    expect(answer).toBe(Errno.EINVAL);
    expect(await answerOn(sendTo(OPENER_SOCKET, USEFUL[OPENER_SOCKET]!))).toBe(0);
    await vi.waitFor(() => expect(openFds(pids[OPENER_SOCKET]!)).toBe(files), SOON);
  });

  it('a request that is cut off ends with its connection', async () => {
    closeFd(sendTo(WRITER_SOCKET, request({ operation: WRITE }).subarray(0, 7)));
    expect(await numVfs.read()).toBe(2);
  });
});
