// A backend that records: the real process, its file, and what becomes of both when something goes wrong.

import {
  closeSync,
  existsSync,
  openSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { EventKind, functionNumberOf, NO_FUNCTION } from '../../protocol/trace/format.ts';
import { createEventFd } from '../../protocol/unix/eventfd.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { createMemfd } from '../../protocol/unix/memory.ts';
import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { ReferenceVmm } from '../../vmm-glue/reference-vmm/reference-vmm.ts';
import { TraceFile } from '../../vmm-glue/trace/reading/trace-file.ts';
import { amountOf } from '../full.ts';
import { BY_A_PROGRAM, SOON } from '../patience.ts';
import { MemoryTrace } from '../unit/trace/ring.ts';
import { OwnFolder } from './own-folder.ts';

const HOSTILE_WRITES = amountOf({ usual: 1e5, full: 1e7 });
const HOSTILE_MILLISECONDS = amountOf({ usual: 60_000, full: 1_800_000 });

let folder: OwnFolder;
let path: string;

beforeEach(() => {
  folder = new OwnFolder();
  path = folder.file('trace');
});
afterEach(() => folder.remove());

const run = (...args: string[]) => folder.run(...args);

async function serve(...args: string[]): Promise<VfioUserClient> {
  await folder.serve('--log-format=json', ...args);
  return VfioUserClient.connect(folder.socket, {
    capabilities: { sriov_hotplug: { version: 1, role: 'vmm' } },
  });
}

async function command(client: VfioUserClient, value: number): Promise<void> {
  await client.writeRegion(RegionIndex.config, 0x04, Uint8Array.of(value, 0));
}

it('a driver’s accesses are printed with names, values and the fields that change', async () => {
  const client = await serve(`--trace=${path}`, '--trace-size=1M');
  await command(client, 0x06);
  await client.readRegion(RegionIndex.config, 0x0, 4);
  const { status, stdout } = run('trace', path, '--function=pf', '--only=accesses');
  expect(status).toBe(0);
  expect(stdout.replace(/^ *\d+\.\d{6} /gm, '')).toBe(
    [
      'pf   W Command                    0x0006  memorySpaceEnable 0→1, busMasterEnable 0→1',
      'pf   R Vendor ID                  0x1d0f',
      'pf   R Device ID                  0x0053',
      '',
    ].join('\n'),
  );
  client.close();
});

it('what was answered is in the file when the backend is killed the next moment', async () => {
  const client = await serve(`--trace=${path}`, '--trace-size=1M');
  for (let value = 0; value < 200; value++) {
    await command(client, value & 6);
  }
  await folder.end('SIGKILL');
  const { status, stdout } = run('trace', path, '--only=writes', '--json');
  expect(status).toBe(0);
  expect(stdout.trim().split('\n')).toHaveLength(200);
});

it('a file that is cut short under it ends the trace and nothing else', async () => {
  const client = await serve(`--trace=${path}`, '--trace-size=1M');
  await command(client, 6);
  truncateSync(path, 300_000);
  // The file is looked at now and then, when there is something to write.
  await vi.waitFor(async () => {
    await command(client, 2);
    expect(folder.log).toMatch(/the trace ends: .*cut to \d+ bytes/);
  }, BY_A_PROGRAM);
  await command(client, 6);
  expect(await client.readRegion(RegionIndex.config, 0x04, 2)).toEqual(Uint8Array.of(6, 0));
  expect(statSync(path).size).toBeLessThan(1 << 20);
  client.close();
  expect(await folder.end('SIGTERM')).toEqual([0, null]);
  const { status, stderr } = run('trace', path);
  expect(status).toBe(1);
  expect(stderr).toMatch(/^vfio-user-sriov: [^\n]+cut off[^\n]+\n$/);
});

it(
  'a hostile guest fills its ring and not the disk',
  async () => {
    const client = await serve(`--trace=${path}`, '--trace-size=1M');
    for (let i = 0; i < HOSTILE_WRITES; i++) {
      client.postRegionWrite(RegionIndex.config, 0x04, Uint8Array.of(i & 6, 0));
      if (i % 1000 === 999) {
        await client.readRegion(RegionIndex.config, 0x0, 2);
      }
    }
    expect(statSync(path).size).toBe(1 << 20);
    const { status, stdout } = run('trace', path, '--summary');
    expect(status).toBe(0);
    expect(stdout).toMatch(/pf {4}config writes +\d{4,}/);
    client.close();
  },
  HOSTILE_MILLISECONDS,
);

it('a disk without room is refused at start with one line', () => {
  const { blocks, bsize } = statfsSync('/dev/shm');
  const tooMuch = Math.floor(blocks * bsize * 1.01) + (1 << 20);
  const path = `/dev/shm/trace-${process.pid}`;
  const { status, stderr } = run(
    'serve',
    '--loopback',
    `--socket-path=${folder.socket}`,
    `--trace=${path}`,
    `--trace-size=${tooMuch}`,
  );
  rmSync(path, { force: true });
  expect(status).toBe(1);
  expect(stderr).toMatch(
    /^vfio-user-sriov: \/dev\/shm\/trace-\d+: no room for \d+ bytes: [^\n]+ENOSPC[^\n]+\n$/,
  );
});

it('a start that is refused leaves no recording behind', () => {
  writeFileSync(folder.socket, 'no socket');
  const { status, stderr } = run(
    'serve',
    '--loopback',
    `--socket-path=${folder.socket}`,
    `--trace=${path}`,
  );
  expect(status).toBe(1);
  expect(stderr).toMatch(/^vfio-user-sriov: bind [^\n]+ in use [^\n]+\n$/);
  expect(existsSync(path)).toBe(false);
});

it('room for no recording is refused', () => {
  const args = ['serve', '--loopback', `--socket-path=${folder.socket}`, '--trace-size=1M'];
  const { status, stderr } = run(...args);
  expect(status).toBe(2);
  expect(stderr).toBe(
    'vfio-user-sriov: --trace-size goes with --trace alone; give --trace=FILE as well\n',
  );
});

it('a file that holds something else is not overwritten', () => {
  writeFileSync(path, 'the only copy of my thesis');
  const { status, stderr } = run(
    'serve',
    '--loopback',
    `--socket-path=${folder.socket}`,
    `--trace=${path}`,
  );
  expect(status).toBe(1);
  expect(stderr).toMatch(/^vfio-user-sriov: [^\n]+holds something else; choose another path\n$/);
});

it('a file that another backend records into is left alone, as is a recording that is drawn', async () => {
  const client = await serve(`--trace=${path}`, '--trace-size=1M');
  const other = run('serve', '--loopback', '--socket-path=other.sock', `--trace=${path}`);
  expect([other.status, other.stderr]).toEqual([
    1,
    expect.stringMatching(
      /^vfio-user-sriov: [^\n]+ is being written by another process; [^\n]+\n$/,
    ),
  ]);
  const drawn = run('trace', path, `--html=${path}`);
  expect([drawn.status, drawn.stderr]).toEqual([
    1,
    expect.stringMatching(/^vfio-user-sriov: [^\n]+ is the recording itself; [^\n]+\n$/),
  ]);
  await command(client, 6);
  client.close();
  await folder.end('SIGTERM');
  expect(run('trace', path, '--only=writes').stdout).toContain('Command');
});

it('a BAR that is trapped cannot be mapped, and the log says so in one line', async () => {
  const client = await serve('--trap=pf', `--trace=${path}`, '--trace-size=1M');
  const { info } = await client.regionInfo(RegionIndex.bar0);
  expect(info.areas).toEqual([]);
  expect(folder.log.split('\n').filter((line) => line.includes('can be mapped'))).toHaveLength(1);
  client.close();
});

it('a recording is started and stopped while a backend runs, with the file of whoever asks', async () => {
  const client = await serve();
  await command(client, 2);
  expect(run('trace', '--start', `--socket-path=${folder.socket}`, '--size=1M', path).status).toBe(
    0,
  );
  await command(client, 6);
  const again = run('trace', '--start', `--socket-path=${folder.socket}`, `${path}2`);
  expect(again.status).toBe(1);
  expect(again.stderr).toMatch(
    /^vfio-user-sriov: backend at [^\n]+: a recording is being made already; [^\n]+\n$/,
  );
  expect(existsSync(`${path}2`)).toBe(false);
  const status = JSON.parse(run('status', `--socket-path=${folder.socket}`, '--json').stdout) as {
    trace: { on: boolean };
  };
  expect(status.trace.on).toBe(true);
  expect(run('trace', '--stop', `--socket-path=${folder.socket}`).status).toBe(0);
  await command(client, 0);
  const { status: exit, stdout } = run('trace', path, '--only=writes', '--function=pf');
  expect(exit).toBe(0);
  expect(stdout.trim().split('\n')).toHaveLength(1);
  expect(stdout).toContain('0x0006  busMasterEnable 0→1');
  client.close();
});

it('what is not being recorded is not stopped', async () => {
  await folder.serve();
  const { status, stderr } = run('trace', '--stop', `--socket-path=${folder.socket}`);
  expect(status).toBe(1);
  expect(stderr).toMatch(
    /^vfio-user-sriov: backend at [^\n]+: no recording is being made; [^\n]+\n$/,
  );
});

it.each([
  ['--explain', '--follow'],
  ['--explain', '--function=pf'],
  ['--summary', '--json'],
  ['--summary', '--explain'],
  ['--html=x.html', '--follow'],
  ['--diff=x', '--html=x.html'],
  ['--start', '--stop'],
  ['--start', '--summary'],
  ['--size=1M'],
  ['--socket-path=pf.sock'],
])('options that would be ignored are refused: %s %s', (...options) => {
  const { status, stderr } = run('trace', path, ...options);
  expect(status).toBe(2);
  expect(stderr).toMatch(/^vfio-user-sriov: --[^\n]+ goe?s? (not go )?with [^\n]+\n$/);
});

it.each([
  ['--function=vf99', /^nothing of the recording is what was asked for\n$/],
  ['--register=numvfs', /^nothing of the recording is what was asked for; --register [^\n]+\n$/],
])('says so where nothing is shown: %s', (option, said) => {
  const { status, stdout, stderr } = run('trace', new MemoryTrace().save(), option);
  expect([status, stdout]).toEqual([0, '']);
  expect(stderr).toMatch(said);
});

it.each([
  [['--since='], '--since is no number of seconds'],
  [['--since=-1'], '--since is no number of seconds'],
  [['--html=x', '--perfetto=./x'], './x is to hold two drawings'],
])('what cannot be meant is refused: %s', (options, why) => {
  const { status, stderr } = run('trace', new MemoryTrace().save(), ...options);
  expect(status).toBe(2);
  expect(stderr).toMatch(/^vfio-user-sriov: [^\n]+\n$/);
  expect(stderr).toContain(why);
});

it('a driver behind a VMM that attaches VFs itself is clean where it waits, and is found where it does not', async () => {
  await folder.serve(`--trace=${path}`, '--trace-size=1M');
  const live = async (wait: (milliseconds: number) => Promise<void>): Promise<string> => {
    const vmm = await ReferenceVmm.start({ pf: folder.socket, wait });
    await vmm.enableVfs(2);
    await vmm.disableVfs();
    await vmm.sriov.enable(1);
    await vmm.close();
    return run('trace', path, '--explain').stdout;
  };
  expect(await live(sleep)).toMatch(/^nothing that the standard forbids\n/);
  const found = await live(async () => {});
  // Where this machine is busy VFs may come up so late that nobody can be hasty: then that is what must be said.
  expect(found).toMatch(
    /VF Enable without the 100 ms wait: VF 0 was accessed [\d.]+ ms of guest time|not judged everywhere: enable-wait: VFs were up [\d.]+ ms/,
  );
  expect(found).toMatch(
    /disable without the 1 s wait: SR-IOV \w+ was accessed [\d.]+ ms of guest time/,
  );
});

it('a file that will not do for a recording is refused, and the backend goes on', async () => {
  const client = await serve();
  const observer = await VfioUserClient.connect(folder.socket, {
    capabilities: { sriov_status: { version: 1 } },
  });
  const short = openSync(path, 'w+');
  const event = createEventFd();
  await expect(observer.startTrace(short)).rejects.toThrow('EINVAL');
  await expect(observer.startTrace(event)).rejects.toThrow('EINVAL');
  closeSync(short);
  closeFd(event);
  expect((await observer.getStatus()).trace).toEqual({
    on: false,
    records: 0,
    bytes: 0,
    isWrapped: false,
    path: null,
    failure: null,
  });
  expect(folder.log).not.toContain('fault of this program');
  observer.close();
  client.close();
});

describe('a client that watches', () => {
  const observe = () =>
    VfioUserClient.connect(folder.socket, { capabilities: { sriov_status: { version: 1 } } });
  const writesIn = (fd: number): number => {
    const file = new TraceFile(`/proc/self/fd/${fd}`);
    const writes = [...file.events()].filter((event) => event.kind === 'access' && event.isWrite);
    file.close();
    return writes.length;
  };

  it('has a recording of its own beside the others, as long as it is there', async () => {
    const client = await serve(`--trace=${path}`, '--trace-size=1M');
    const [one, other] = [await observe(), await observe()];
    const fds = [createMemfd('one', 1 << 20), createMemfd('other', 1 << 20)] as const;
    await one.watchTrace(fds[0]);
    await other.watchTrace(fds[1]);
    await expect(one.watchTrace(fds[1])).rejects.toThrow('EBUSY');
    await command(client, 6);
    expect(fds.map(writesIn)).toEqual([1, 1]);
    one.close();
    await expect.poll(async () => (await other.getStatus()).clients.length, SOON).toBe(2);
    await command(client, 2);
    expect(fds.map(writesIn)).toEqual([1, 2]);
    expect((await other.getStatus()).trace).toMatchObject({ on: true, path });
    expect(run('trace', path, '--only=writes').stdout.trim().split('\n')).toHaveLength(2);
    other.close();
    client.close();
    fds.forEach(closeFd);
  });

  it('is told who was there before it', async () => {
    const client = await serve();
    const observer = await observe();
    const fd = createMemfd('late', 1 << 20);
    await observer.watchTrace(fd);
    const file = new TraceFile(`/proc/self/fd/${fd}`);
    const present = [...file.events()].filter(({ kind }) => kind === 'session');
    file.close();
    expect(present).toMatchObject([
      { function: 'pf', detail: { what: 'agreed', hotplug: { role: 'vmm' } } },
      { function: 'pf', detail: { what: 'agreed', role: 'observer' } },
    ]);
    observer.close();
    client.close();
    closeFd(fd);
  });
});

it('whoever has not negotiated the status starts no recording', async () => {
  const client = await serve();
  const fd = openSync(path, 'w+');
  await expect(client.startTrace(fd)).rejects.toThrow('EPERM');
  await expect(client.watchTrace(fd)).rejects.toThrow('EPERM');
  closeSync(fd);
  client.close();
});

/** What a driver does to enable VFs, looking at what it reads. */
async function drive(client: VfioUserClient): Promise<void> {
  const sriov = 0x110;
  await client.reset();
  const memory = createMemfd('guest', 4096);
  await client.mapDma({ address: 0n, size: 4096n, fd: memory });
  closeFd(memory);
  for (const at of [0x00, 0x04, 0x08, 0x10, 0x2c]) {
    await client.readRegion(RegionIndex.config, at, 4);
  }
  await client.readRegion(RegionIndex.config, sriov + 0x0e, 2);
  await command(client, 6);
  await client.writeRegion(RegionIndex.config, sriov + 0x10, Uint8Array.of(2, 0));
  await client.readRegion(RegionIndex.config, sriov + 0x10, 2);
  await client.writeRegion(RegionIndex.config, sriov + 0x08, Uint8Array.of(0x19, 0));
  await client.readRegion(RegionIndex.config, sriov + 0x08, 2);
}

async function endBackend(client: VfioUserClient): Promise<void> {
  client.close();
  await folder.end('SIGTERM');
}

it('of a recording of two VMMs the first is played, and it is said that the second is not', async () => {
  const first = await serve(`--trace=${path}`, '--trace-size=1M');
  await drive(first);
  first.close();
  const second = await vi.waitFor(() => VfioUserClient.connect(folder.socket), SOON);
  await second.readRegion(RegionIndex.config, 0x04, 2);
  await second.writeRegion(RegionIndex.config, 0x04, Uint8Array.of(6, 0));
  await endBackend(second);
  (await serve()).close();
  const { status, stdout } = run('replay', path, `--socket-path=${folder.socket}`);
  expect(stdout).toMatch(/^\d+ accesses, answered as recorded\n/);
  expect(stdout).toContain('not played: what another VMM did when the first had gone: 2 times\n');
  expect(status).toBe(0);
});

it('a recording in which events are missing is not played', () => {
  const recording = new MemoryTrace();
  recording.recorder.gap(3);
  const { status, stderr } = run('replay', recording.save(), '--socket-path=/nowhere');
  expect(status).toBe(1);
  expect(stderr).toMatch(/not the whole story: events are missing in it; [^\n]+\n$/);
});

it('what was recorded of a function that is neither PF nor VF is played to nobody', async () => {
  const recording = new MemoryTrace();
  const { recorder } = recording;
  recorder.access(0, true, RegionIndex.config, 0x110 + 0x10, Uint8Array.of(1, 0));
  recorder.access(0, true, RegionIndex.config, 0x110 + 0x08, Uint8Array.of(0x19, 0));
  recorder.note(EventKind.step, NO_FUNCTION, { event: {}, before: 'plugging', after: 'enabled' });
  recorder.access(
    functionNumberOf('carrier1'),
    false,
    RegionIndex.config,
    0x04,
    Uint8Array.of(0x06, 0),
  );
  (await serve()).close();
  const { status, stdout } = run('replay', recording.save(), `--socket-path=${folder.socket}`);
  expect(stdout).toBe(
    '2 accesses, answered as recorded\n' +
      'not played: accesses to carriers of VFs’ memory: 1 times\n',
  );
  expect(status).toBe(0);
});

describe('a recording of a VMM without hot-plug, which looks at all of config space at once', () => {
  beforeEach(async () => {
    await folder.serve(`--trace=${path}`, '--trace-size=1M', '--total-vfs=4');
    const client = await VfioUserClient.connect(folder.socket);
    await client.readRegion(RegionIndex.config, 0, 4096);
    await client.reset();
    await client.readRegion(RegionIndex.config, 0, 4096);
    await endBackend(client);
  });

  const replay = async (totalVfs: number) => {
    (await serve(`--total-vfs=${totalVfs}`)).close();
    return run('replay', path, `--socket-path=${folder.socket}`);
  };

  it('is answered as before, but for what was hidden from that VMM', async () => {
    const { status, stdout } = await replay(4);
    expect(stdout).toBe(
      '2 accesses, answered as recorded\n' +
        'not played: answers of extended config space before the first reset (it was hidden): 1 times\n',
    );
    expect(status).toBe(0);
  });

  it('names the register in it that is answered otherwise', async () => {
    const { status, stdout } = await replay(5);
    expect(stdout).toMatch(
      /\n {2}\d+\.\d+ pf R SR-IOV InitialVFs: recorded 0x0004, answered 0x0005\n/,
    );
    expect(status).toBe(1);
  });
});

describe('a recording played again', () => {
  beforeEach(async () => {
    const client = await serve(`--trace=${path}`, '--trace-size=1M', '--total-vfs=4');
    await drive(client);
    await endBackend(client);
  });

  const again = async (...args: string[]) => {
    const client = await serve(...args);
    client.close();
    return run('replay', path, `--socket-path=${folder.socket}`);
  };

  it('is answered as before by an equal backend', async () => {
    const { status, stdout, stderr } = await again('--total-vfs=4');
    expect(stderr).toBe('');
    expect(stdout).toMatch(
      /^\d+ accesses, answered as recorded\nnot played: guest memory \(its contents are not in a recording\): 1 times\n/,
    );
    expect(status).toBe(0);
  });

  it('names the first access that a backend answers otherwise', async () => {
    const { status, stdout } = await again('--total-vfs=5');
    expect(stdout).toMatch(/\d+\.\d+ pf R SR-IOV TotalVFs: recorded 0x0004, answered 0x0005\n/);
    expect(status).toBe(1);
  });

  it('differs from another in the access where they part', async () => {
    const other = `${path}.other`;
    const client = await serve(`--trace=${other}`, '--trace-size=1M', '--total-vfs=5');
    await drive(client);
    await endBackend(client);
    expect(run('trace', path, `--diff=${path}`).status).toBe(0);
    const { status, stdout } = run('trace', path, `--diff=${other}`);
    expect(status).toBe(1);
    expect(stdout).toMatch(/^pf: the recordings part after \d+ equal accesses\n/);
    expect(stdout).toMatch(/A .*SR-IOV TotalVFs +0x0004\n +B .*SR-IOV TotalVFs +0x0005\n/);
  });
});

it('a recording whose beginning is gone is not played', async () => {
  const client = await serve(`--trace=${path}`, '--trace-size=1M');
  for (let i = 0; i < 300; i++) {
    await client.readRegion(RegionIndex.config, 0, 256);
    for (let j = 0; j < 100; j++) {
      client.postRegionWrite(RegionIndex.config, 0x04, Uint8Array.of(j & 6, 0));
    }
  }
  await endBackend(client);
  const { status, stderr } = run('replay', path, '--socket-path=/nowhere');
  expect(status).toBe(1);
  expect(stderr).toMatch(/its ring went around[^\n]+larger --trace-size\n$/);
});
