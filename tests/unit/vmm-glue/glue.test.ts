// The glue against a fake QEMU and fake backends: what it asks of QEMU, and that the guest is never left paused.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { EnableTiming } from '../../../vmm-glue/qemu/enable.ts';
import { type GlueOptions, QemuGlue } from '../../../vmm-glue/qemu/glue.ts';
import { FakeBackend } from '../../fakes/hotplug-backend.ts';
import { FakeQemu } from '../../fakes/qemu-monitor.ts';

const PF = '/run/backend/pf.sock';
const PF2 = '/run/other/pf.sock';
const LOG = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };
const DONE = { result: 'done', errno: 0, text: '' };

let folder: string;
let qemu: FakeQemu;
let backend: FakeBackend;
let glue: QemuGlue | undefined;
let timings: EnableTiming[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'glue-'));
  qemu = new FakeQemu(join(folder, 'qmp'));
  qemu.functions = [
    { id: 'sriov-pf0', bus: 1, devfn: 0, socketPath: PF },
    { id: 'sriov-pf0-vf0', bus: 1, devfn: 1, socketPath: '/run/backend/vf0.sock' },
    { id: 'sriov-pf0-vf1', bus: 1, devfn: 2, socketPath: '/run/backend/vf1.sock' },
  ];
  await qemu.listen();
  backend = new FakeBackend();
  timings = [];
});

afterEach(async () => {
  await glue?.close();
  glue = undefined;
  await qemu.vanish();
  rmSync(folder, { recursive: true });
});

async function attach(options: Partial<GlueOptions> = {}): Promise<QemuGlue> {
  glue = await QemuGlue.start({
    qmpPath: qemu.path,
    socketPaths: [PF],
    log: LOG,
    onTiming: (timing) => timings.push(timing),
    connectBackend: async () => backend,
    ...options,
  });
  qemu.commands.length = 0;
  return glue;
}

/** Attaches to a second backend as well, whose PF sits on the root bus; gives that one. */
async function attachToTwo(): Promise<FakeBackend> {
  const other = new FakeBackend();
  qemu.functions.push(
    { id: 'sriov-pf1', bus: 0, devfn: 0x80, socketPath: PF2 },
    { id: 'sriov-pf1-vf0', bus: 0, devfn: 0x81, socketPath: '/run/other/vf0.sock' },
  );
  await attach({
    socketPaths: [PF, PF2],
    connectBackend: async (path) => (path === PF ? backend : other),
  });
  return other;
}

/** One enable from begin to end, as a backend does it; gives the answers. */
async function enable(numVfs: number, options: Parameters<FakeBackend['plug']>[1] = {}) {
  const answers = [await backend.begin(numVfs)];
  for (let vfIndex = 0; vfIndex < numVfs; vfIndex++) {
    answers.push(await backend.plug(vfIndex, options));
  }
  backend.end();
  await vi.waitFor(() => expect(qemu.commands.at(-1)).toBe('cont'));
  await vi.waitFor(() => expect(qemu.isRunning).toBe(true));
  return answers;
}

const guestIsPaused = () => vi.waitFor(() => expect(qemu.isRunning).toBe(false));
const portGivenBack = (): Promise<void> =>
  vi.waitFor(() => {
    expect(qemu.portCommands().length).toBeGreaterThan(1);
    expect(qemu.configAddress).toBe(0x8001_0004);
  });
const guestRuns = () => vi.waitFor(() => expect(qemu.isRunning).toBe(true), { timeout: 5000 });

it('waits for a QEMU that greets while it is still making its devices', async () => {
  qemu.react('qmp_capabilities', { delayMilliseconds: 80 });
  await attach({ commandMilliseconds: 40 });
  expect(qemu.isRunning).toBe(true);
});

it('connects to its backends when everything else is ready: they count on it from then on', async () => {
  const seen: string[][] = [];
  await attach({
    connectBackend: async () => {
      seen.push([...qemu.commands]);
      return backend;
    },
  });
  // The last of the warm-up.
  expect(seen).toEqual([expect.arrayContaining(['i /w 0xcf8'])]);
  expect(seen[0]!.at(-1)).toBe('i /w 0xcf8');
});

describe('an enable', () => {
  it('stops the guest first, places the VFs, gives the port back, and lets the guest go on', async () => {
    await attach();
    const [, placed] = await Promise.all([
      backend.begin(1),
      backend.plug(0, { placementLost: true }),
    ]);
    expect(placed).toEqual(DONE);
    backend.end();
    await vi.waitFor(() => expect(qemu.commands.at(-1)).toBe('cont'));
    expect(qemu.commands).toEqual([
      'stop',
      'i /w 0xcf8',
      'query-pci',
      'o /w 0xcf8 0x80010114',
      'o /w 0xcfc 0x8',
      'o /w 0xcf8 0x80010104',
      'o /h 0xcfc 0x2',
      'o /w 0xcf8 0x80010004',
      'cont',
    ]);
    expect(qemu.unsafeWrites).toBe(0);
  });

  it('is answered when QEMU has been asked to stop the guest, before it has', async () => {
    await attach();
    qemu.react('stop', { delayMilliseconds: 50 });
    expect(await backend.begin(1)).toEqual(DONE);
    expect(qemu.isRunning).toBe(true);
    await guestIsPaused();
    backend.end('failed');
    await guestRuns();
  });

  it('that fails lets the guest go on, and the next one finds everything in order', async () => {
    await attach();
    await backend.begin(1);
    await guestIsPaused();
    backend.end('failed');
    await guestRuns();
    await vi.waitFor(() => expect(timings).toMatchObject([{ outcome: 'failed', placedVfs: 0 }]));
    await enable(1);
    expect(qemu.register(1, 1, 4)).toBe(2);
  });

  it('puts each VF’s BAR where the guest’s SR-IOV capability says', async () => {
    await attach();
    expect(await enable(2)).toEqual([DONE, DONE, DONE]);
    expect(qemu.register(1, 2, 0x10)).toBe(16384);
    expect(qemu.register(1, 2, 0x14)).toBe(8);
    expect(qemu.register(1, 2, 4)).toBe(2);
    expect(qemu.configAddress).toBe(0x8001_0004);
  });

  it('takes two monitor commands for each VF that has not moved since the last one', async () => {
    await attach();
    await enable(2);
    await enable(2);
    expect(timings.map((timing) => timing.placementCommands)).toEqual([16, 4]);
  });

  it('tells how long each step took and how many commands', async () => {
    await attach();
    await enable(2);
    await vi.waitFor(() => expect(timings).toHaveLength(1));
    expect(timings[0]).toMatchObject({
      backend: PF,
      generation: 1,
      outcome: 'enabled',
      placedVfs: 2,
      placementCommands: 16,
      monitorCommands: 21,
    });
    const [timing] = timings;
    expect(timing!.pauseMilliseconds).toBeGreaterThanOrEqual(timing!.placementMilliseconds);
    expect(timing!.standstillMilliseconds).toBeGreaterThan(0);
    expect(timing!.standstillMilliseconds).toBeLessThanOrEqual(timing!.pauseMilliseconds + 0.01);
  });

  it('on the root bus asks for no bus numbers', async () => {
    qemu.functions = [
      { id: 'sriov-pf0', bus: 0, devfn: 0x80, socketPath: PF },
      { id: 'sriov-pf0-vf0', bus: 0, devfn: 0x81, socketPath: '/run/backend/vf0.sock' },
    ];
    await attach();
    await enable(1);
    expect(qemu.commands).not.toContain('query-pci');
    expect(qemu.register(0, 0x81, 0x14)).toBe(8);
  });

  it('leaves a guest paused that was found paused, with its VFs placed', async () => {
    qemu.isRunning = false;
    qemu.status = 'paused';
    await attach();
    await backend.begin(1);
    expect(await backend.plug(0)).toEqual(DONE);
    backend.end();
    await vi.waitFor(() => expect(timings).toHaveLength(1));
    expect(qemu.commands).not.toContain('stop');
    expect(qemu.commands).not.toContain('cont');
    expect(qemu.configAddress).toBe(0x8001_0004);
    expect(timings[0]!.pauseMilliseconds).toBe(0);
  });

  it('notices that somebody else has paused the guest since', async () => {
    await attach();
    qemu.emit('STOP');
    // A round trip to the backend does not order the event: let it arrive.
    await new Promise((resolve) => setTimeout(resolve, 20));
    await enableWithoutResume();
    expect(qemu.isRunning).toBe(false);
  });

  it('that the backend gives up lets the guest go on', async () => {
    await attach();
    await backend.begin(1);
    backend.end('failed');
    await guestRuns();
    await vi.waitFor(() => expect(timings[0]?.outcome).toBe('failed'));
  });

  it('places slots anew after a reset of the machine', async () => {
    await attach();
    await enable(1);
    qemu.emit('RESET');
    await enable(1);
    // A reset leaves zeros: the lower half of this address is one.
    expect(timings.map((timing) => timing.placementCommands)).toEqual([8, 4]);
    expect(qemu.register(1, 1, 0x14)).toBe(8);
  });

  it('places a slot anew that the backend says was reset', async () => {
    await attach();
    await enable(1);
    await enable(1, { placementLost: true });
    expect(timings.map((timing) => timing.placementCommands)).toEqual([8, 4]);
  });

  async function enableWithoutResume(): Promise<void> {
    await backend.begin(1);
    await backend.plug(0);
    backend.end();
    await vi.waitFor(() => expect(timings).toHaveLength(1));
  }
});

describe('VFs that are announced while they come up', () => {
  /** Begins an enable and announces its VFs at once; gives the answers to that. */
  async function announce(numVfs: number, options = {}, readyAfterMilliseconds?: number) {
    const begun = backend.begin(numVfs, readyAfterMilliseconds);
    const answers = Array.from({ length: numVfs }, (_, vfIndex) => backend.plug(vfIndex, options));
    expect(await begun).toEqual(DONE);
    return Promise.all(answers);
  }

  it('are placed meanwhile, and nothing is left to do but to let the guest go on', async () => {
    await attach();
    expect(await announce(2)).toEqual([DONE, DONE]);
    await portGivenBack();
    expect([qemu.register(1, 1, 4), qemu.register(1, 2, 4)]).toEqual([2, 2]);
    expect(qemu.register(1, 2, 0x10)).toBe(16384);
    qemu.commands.length = 0;
    backend.end();
    await guestRuns();
    expect(qemu.commands).toEqual(['cont']);
    expect(timings[0]).toMatchObject({ placedVfs: 2, placementCommands: 16 });
    expect(qemu.unsafeWrites).toBe(0);
  });

  it('are placed in one go', async () => {
    await attach();
    await announce(2, { placementLost: true });
    backend.end();
    await guestRuns();
    expect(qemu.commands.filter((command) => !command.startsWith('o'))).toEqual([
      'stop',
      'i /w 0xcf8',
      'query-pci',
      'cont',
    ]);
    // The port saved, 4 and 6 for the VFs, which a reset has left with zeros, and the port restored.
    expect(qemu.portCommands()).toHaveLength(1 + 4 + 6 + 1);
  });

  it('are moved when they are taken back and announced somewhere else', async () => {
    await attach();
    await announce(1);
    await portGivenBack();
    const moved = [backend.unplug(0), backend.plug(0, { address: 0x9_0000_4000n })];
    expect(await Promise.all(moved)).toEqual([DONE, DONE]);
    expect([qemu.register(1, 1, 0x10), qemu.register(1, 1, 0x14)]).toEqual([0x4000, 9]);
    backend.end();
    await guestRuns();
    expect(qemu.configAddress).toBe(0x8001_0004);
  });

  it('are placed again when they are announced again because the slot was reset', async () => {
    await attach();
    await announce(1);
    await portGivenBack();
    qemu.config.clear();
    await backend.plug(0, { placementLost: true });
    expect([qemu.register(1, 1, 4), qemu.register(1, 1, 0x14)]).toEqual([2, 8]);
    backend.end();
    await guestRuns();
  });

  it('are refused when they come after the glue has given the enable up', async () => {
    await attach({ enableLimitMilliseconds: 50 });
    expect(await announce(1)).toEqual([DONE]);
    await guestRuns();
    const again = [backend.unplug(0), backend.plug(0)];
    expect(await Promise.all(again)).toMatchObject([DONE, { result: 'refused', errno: 110 }]);
  });

  it('do not keep the guest paused if they do not come', async () => {
    await attach();
    await announce(2);
    await portGivenBack();
    backend.end('failed');
    await guestRuns();
    expect(qemu.configAddress).toBe(0x8001_0004);
    expect(qemu.unsafeWrites).toBe(0);
  });

  it('do not keep the guest paused when the backend goes away', async () => {
    const attached = await attach();
    await announce(1);
    backend.close();
    await attached.ended;
    expect(qemu.isRunning).toBe(true);
    expect(qemu.unsafeWrites).toBe(0);
  });

  it('are refused where QEMU refuses, and the others placed', async () => {
    await attach();
    qemu.react('o /h', 'refuse');
    expect(await announce(2)).toMatchObject([{ result: 'refused' }, DONE]);
    backend.end('failed');
    await guestRuns();
  });
});

describe('VFs that take their time', () => {
  /** As a host whose kernel sleeps for that long. */
  const SLOW = 100;

  it('leave the guest most of the time that it waits anyway, and are placed after that', async () => {
    await attach();
    const began = performance.now();
    expect(await backend.begin(1, SLOW)).toEqual(DONE);
    const placed = backend.plug(0);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(qemu.commands).toEqual([]);
    expect(await placed).toEqual(DONE);
    expect(performance.now() - began).toBeGreaterThan(70);
    expect(qemu.register(1, 1, 4)).toBe(2);
    backend.end();
    await guestRuns();
    expect(qemu.commands.filter((each) => each === 'stop')).toHaveLength(1);
    expect(qemu.unsafeWrites).toBe(0);
  });

  it('pause nobody when they fail before that, and their places are not wanted any more', async () => {
    await attach();
    await backend.begin(1, SLOW);
    const placed = backend.plug(0);
    backend.end('failed');
    expect(await placed).toMatchObject({ result: 'refused', text: 'the enable is over' });
    await vi.waitFor(() =>
      expect(timings).toMatchObject([{ outcome: 'failed', pauseMilliseconds: 0 }]),
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(qemu.commands).toEqual([]);
  });

  it('are refused when the guest cannot be paused after all', async () => {
    await attach();
    qemu.react('stop', 'refuse');
    await backend.begin(1, SLOW);
    expect(await backend.plug(0)).toMatchObject({ result: 'refused' });
    expect(await backend.plug(0)).toMatchObject({ result: 'refused' });
    expect(qemu.isRunning).toBe(true);
  });

  it('have a guest that stands still already for another backend kept so', async () => {
    const other = await attachToTwo();
    await other.begin(1);
    await guestIsPaused();
    await backend.begin(1, SLOW);
    await other.plug(0);
    other.end();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(qemu.isRunning).toBe(false);
    await backend.plug(0);
    backend.end();
    await guestRuns();
    expect(qemu.commands.filter((each) => each === 'stop')).toHaveLength(1);
  });
});

it('a disable asks nothing of QEMU: slots keep their places, where the backend answers all-ones', async () => {
  await attach();
  await enable(2);
  qemu.commands.length = 0;
  expect(await Promise.all([backend.unplug(0), backend.unplug(1)])).toEqual([DONE, DONE]);
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(qemu.commands).toEqual([]);
  expect([qemu.register(1, 1, 4), qemu.register(1, 2, 4)]).toEqual([2, 2]);
});

describe('several backends of one QEMU', () => {
  it('share one pause, and never mix their port accesses', async () => {
    const other = await attachToTwo();
    await Promise.all([backend.begin(2), other.begin(1)]);
    const plugs = [backend.plug(0), other.plug(0), backend.plug(1)];
    expect(await Promise.all(plugs)).toEqual([DONE, DONE, DONE]);
    backend.end();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(qemu.isRunning).toBe(false);
    other.end();
    await guestRuns();
    expect(qemu.commands.filter((command) => command === 'stop')).toHaveLength(1);
    expect(qemu.commands.filter((command) => command === 'cont')).toHaveLength(1);
    expect(qemu.register(0, 0x81, 4)).toBe(2);
    expect(qemu.register(1, 2, 0x10)).toBe(16384);
    expect(qemu.unsafeWrites).toBe(0);
  });
});

describe('the guest runs on', () => {
  it('when QEMU refuses a port write: the VF is refused, and the next enable writes everything', async () => {
    await attach();
    qemu.react('o /h', 'refuse');
    await backend.begin(1);
    expect(await backend.plug(0)).toMatchObject({ result: 'refused', errno: 5 });
    backend.end('failed');
    await guestRuns();
    await enable(1);
    expect(timings.at(-1)!.placementCommands).toBe(8);
  });

  it('when QEMU refuses to stop: the enable is refused, and nothing is written', async () => {
    await attach();
    qemu.react('stop', 'refuse');
    await backend.begin(1);
    expect(await backend.plug(0)).toMatchObject({ result: 'refused' });
    expect(qemu.portCommands()).toEqual([]);
    expect(qemu.isRunning).toBe(true);
  });

  it('when QEMU answers the stop too late: it is resumed after it did stop', async () => {
    await attach({ commandMilliseconds: 30 });
    qemu.react('stop', { delayMilliseconds: 120 });
    await backend.begin(1);
    expect(await backend.plug(0)).toMatchObject({ result: 'refused' });
    await new Promise((resolve) => setTimeout(resolve, 120));
    qemu.react('cont', { delayMilliseconds: 0 });
    await guestRuns();
  });

  it('when QEMU is slow, with the VFs placed', async () => {
    await attach({ commandMilliseconds: 1000 });
    qemu.react('', { delayMilliseconds: 15 }, 20);
    expect(await enable(1)).toEqual([DONE, DONE]);
  });

  it('when QEMU refuses to continue: it is asked again', async () => {
    await attach();
    await backend.begin(1);
    await guestIsPaused();
    qemu.react('cont', 'refuse', 2);
    backend.end('failed');
    await guestRuns();
    expect(qemu.commands.filter((command) => command === 'cont')).toHaveLength(3);
  });

  it('when the connection breaks in the middle of a placement: it is resumed over a new one', async () => {
    await attach();
    await backend.begin(2);
    await backend.plug(0);
    qemu.react('o /w 0xcfc', 'disconnect');
    expect(await backend.plug(1)).toMatchObject({ result: 'refused' });
    backend.end('failed');
    await guestRuns();
    expect(qemu.configAddress).toBe(0x8001_0004);
    await enable(2);
    expect(qemu.register(1, 2, 0x10)).toBe(16384);
  });

  it('when the backend goes away in the middle of an enable', async () => {
    const attached = await attach();
    await backend.begin(2);
    backend.close();
    await guestRuns();
    await attached.ended;
  });

  it('when the backend never ends the enable, and what it plugs later is refused', async () => {
    await attach({ enableLimitMilliseconds: 50 });
    await backend.begin(2);
    await vi.waitFor(() => expect(timings).toHaveLength(1));
    await guestRuns();
    expect(await backend.plug(0)).toMatchObject({ result: 'refused', errno: 110 });
    expect(timings[0]).toMatchObject({ outcome: 'abandoned' });
    expect(qemu.portCommands().filter((command) => command.startsWith('o'))).toEqual([]);
  });

  it('when the glue is ended in the middle of an enable', async () => {
    const attached = await attach();
    await backend.begin(1);
    await guestIsPaused();
    expect(noteOf(qemu.path)).not.toBe('');
    await attached.close();
    glue = undefined;
    expect(qemu.isRunning).toBe(true);
    expect(existsSync(`${qemu.path}.sriov-glue`)).toBe(false);
  });

  it('by the next glue, when QEMU cannot be told at the end', async () => {
    const attached = await attach();
    await backend.begin(1);
    await guestIsPaused();
    await qemu.vanish();
    await attached.close();
    glue = undefined;
    expect(JSON.parse(noteOf(qemu.path))).toHaveProperty('qemu');
  });

  it('when the glue before this one was killed with the guest paused', async () => {
    const first = await attach();
    await backend.begin(1);
    await backend.plug(0);
    // What a killed process leaves: its lock is gone, what it wrote stays.
    const note = noteOf(qemu.path);
    await first.close();
    writeFileSync(`${qemu.path}.sriov-glue`, note);
    qemu.emit('STOP');
    qemu.configAddress = 0x8001_0104;
    backend = new FakeBackend();
    await attach();
    await guestRuns();
    expect(qemu.configAddress).toBe(0x8001_0004);
  });

  it('unless it was paused by somebody else before this glue came', async () => {
    qemu.emit('STOP');
    writeFileSync(`${qemu.path}.sriov-glue`, '{"qemu":"another one"}');
    await attach();
    expect(qemu.isRunning).toBe(false);
  });
});

describe('attaching is refused', () => {
  it('when another glue serves this QEMU', async () => {
    await attach();
    await expect(
      QemuGlue.start({
        qmpPath: qemu.path,
        socketPaths: [PF],
        log: LOG,
        connectBackend: async () => new FakeBackend(),
      }),
    ).rejects.toThrow('another glue already serves this QEMU');
  });

  it('when there is no QEMU', async () => {
    const start = (qmpPath: string) => QemuGlue.start({ qmpPath, socketPaths: [PF], log: LOG });
    await expect(start(join(folder, 'none'))).rejects.toThrow('no such socket');
    await expect(start('/nowhere/qmp')).rejects.toThrow('QMP socket /nowhere/qmp');
  });

  it('when QEMU does not have the backend’s PF', async () => {
    qemu.functions = [];
    await expect(attach()).rejects.toThrow('qemu-args');
  });

  it('when nobody serves the backend’s socket', async () => {
    await expect(
      QemuGlue.start({ qmpPath: qemu.path, socketPaths: [join(folder, 'none')], log: LOG }),
    ).rejects.toThrow(/QEMU has no vfio-user-pci device/);
    qemu.functions[0] = { ...qemu.functions[0]!, socketPath: join(folder, 'none') };
    await expect(
      QemuGlue.start({ qmpPath: qemu.path, socketPaths: [join(folder, 'none')], log: LOG }),
    ).rejects.toThrow(/backend at .*none: .*vfio-user-sriov serve/);
  });
});

it('refuses a VF for which QEMU has no slot, and says how to start QEMU', async () => {
  await attach();
  await backend.begin(3);
  expect(await backend.plug(2)).toMatchObject({
    result: 'refused',
    text: expect.stringContaining('no vfio-user-pci device at 0.3'),
  });
  backend.end('failed');
  await guestRuns();
});

function noteOf(qmpPath: string): string {
  return readFileSync(`${qmpPath}.sriov-glue`, 'utf8');
}
