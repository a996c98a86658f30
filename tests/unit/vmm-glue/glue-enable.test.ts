// One enable, as the glue carries it out: what it asks of QEMU, and in which order.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { logInto } from '../../../protocol/log.ts';
import { makeGate } from '../../fakes/gate.ts';
import { SOON } from '../../patience.ts';
import { allIsDone, DONE, GlueRig, LOG, PF } from './glue-rig.ts';

let rig: GlueRig;

beforeEach(async () => {
  rig = await GlueRig.start();
});

afterEach(() => rig.end());

describe('an enable', () => {
  it('stops the guest first, places the VFs, gives the port back, and lets the guest go on', async () => {
    await rig.attach();
    const [, placed] = await Promise.all([
      rig.backend.begin(1),
      rig.backend.plug(0, { placementLost: true }),
    ]);
    expect(placed).toEqual(DONE);
    rig.backend.end();
    await vi.waitFor(() => expect(rig.qemu.commands.at(-1)).toBe('cont'), SOON);
    expect(rig.qemu.commands).toEqual([
      'query-status',
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
    expect(rig.qemu.unsafeWrites).toBe(0);
  });

  it('is answered when QEMU has been asked to stop the guest, before it has', async () => {
    await rig.attach();
    const late = makeGate();
    rig.qemu.react('stop', { first: () => late.opened });
    expect(await rig.backend.begin(1)).toEqual(DONE);
    expect(rig.qemu.isRunning).toBe(true);
    late.open();
    await rig.guestIsPaused();
    rig.backend.end('failed');
    await rig.guestRuns();
  });

  it('that fails lets the guest go on, and the next one finds everything in order', async () => {
    await rig.attach();
    await rig.backend.begin(1);
    await rig.guestIsPaused();
    rig.backend.end('failed');
    await rig.guestRuns();
    await vi.waitFor(
      () => expect(rig.timings).toMatchObject([{ outcome: 'failed', placedVfs: 0 }]),
      SOON,
    );
    await rig.enable(1);
    expect(rig.qemu.register(1, 1, 4)).toBe(2);
  });

  it('puts each VF’s BAR where the guest’s SR-IOV capability says', async () => {
    await rig.attach();
    expect(await rig.enable(2)).toEqual([DONE, DONE, DONE]);
    expect(rig.qemu.register(1, 2, 0x10)).toBe(16384);
    expect(rig.qemu.register(1, 2, 0x14)).toBe(8);
    expect(rig.qemu.register(1, 2, 4)).toBe(2);
    expect(rig.qemu.configAddress).toBe(0x8001_0004);
  });

  it('takes two monitor commands for each VF that has not moved since the last one', async () => {
    await rig.attach();
    await rig.enable(2);
    await rig.enable(2);
    expect(rig.timings.map((timing) => timing.placementCommands)).toEqual([16, 4]);
  });

  it('tells how long each step took and how many commands', async () => {
    await rig.attach();
    await rig.enable(2);
    await vi.waitFor(() => expect(rig.timings).toHaveLength(1), SOON);
    expect(rig.timings[0]).toMatchObject({
      backend: PF,
      generation: 1,
      outcome: 'enabled',
      placedVfs: 2,
      placementCommands: 16,
      monitorCommands: 22,
    });
    const [timing] = rig.timings;
    expect(timing!.pauseMilliseconds).toBeGreaterThanOrEqual(timing!.placementMilliseconds);
    expect(timing!.standstillMilliseconds).toBeGreaterThan(0);
    expect(timing!.standstillMilliseconds).toBeLessThanOrEqual(timing!.pauseMilliseconds + 0.01);
  });

  it('on the root bus asks for no bus numbers', async () => {
    rig.qemu.functions = [
      { id: 'sriov-pf0', bus: 0, devfn: 0x80, socketPath: PF },
      { id: 'sriov-pf0-vf0', bus: 0, devfn: 0x81, socketPath: '/run/backend/vf0.sock' },
    ];
    await rig.attach();
    await rig.enable(1);
    expect(rig.qemu.commands).not.toContain('query-pci');
    expect(rig.qemu.register(0, 0x81, 0x14)).toBe(8);
  });

  it('leaves a guest paused that was found paused, with its VFs placed', async () => {
    rig.qemu.isRunning = false;
    rig.qemu.status = 'paused';
    await rig.attach();
    await rig.backend.begin(1);
    expect(await rig.backend.plug(0)).toEqual(DONE);
    rig.backend.end();
    await vi.waitFor(() => expect(rig.timings).toHaveLength(1), SOON);
    expect(rig.qemu.commands).not.toContain('stop');
    expect(rig.qemu.commands).not.toContain('cont');
    expect(rig.qemu.configAddress).toBe(0x8001_0004);
    expect(rig.timings[0]!.pauseMilliseconds).toBe(0);
  });

  it('leaves a guest paused that somebody else has paused just before, with its VFs placed', async () => {
    await rig.attach();
    // The event is still on its way when the glue asks for the stop.
    rig.qemu.isRunning = false;
    rig.qemu.status = 'paused';
    await enableWithoutResume();
    expect(rig.qemu.commands).toContain('stop');
    expect(rig.qemu.commands).not.toContain('cont');
    expect(rig.qemu.register(1, 1, 4)).toBe(2);
    expect(rig.qemu.configAddress).toBe(0x8001_0004);
  });

  it('pauses the guest again that somebody has let run meanwhile', async () => {
    await rig.attach();
    await rig.backend.begin(1);
    await rig.guestIsPaused();
    rig.qemu.emit('RESUME');
    await rig.guestIsPaused();
    expect(await rig.backend.plug(0)).toEqual(DONE);
    rig.backend.end();
    await rig.guestRuns();
    expect(rig.qemu.commands.filter((command) => command === 'stop')).toHaveLength(2);
    expect(rig.qemu.unsafeWrites).toBe(0);
  });

  it('pauses the guest again that somebody lets run right behind the answer to the stop', async () => {
    await rig.attach();
    const { qemu } = rig;
    // In one piece with that answer, which the fake sends in a microtask after this one.
    const behind = async () => {
      await Promise.resolve();
      await Promise.resolve();
      qemu.emit('RESUME');
    };
    qemu.react('stop', { first: () => void behind() });
    await rig.backend.begin(1);
    const stops = () => qemu.commands.filter((command) => command === 'stop');
    await vi.waitFor(() => expect(stops()).toHaveLength(2), SOON);
    expect(await rig.backend.plug(0)).toEqual(DONE);
    rig.backend.end();
    await rig.guestRuns();
    expect(qemu.unsafeWrites).toBe(0);
  });

  it('places VFs although somebody has let the guest run before its buses were looked up', async () => {
    await rig.attach();
    rig.qemu.react('i /w 0xcf8', { first: () => rig.qemu.emit('RESUME') });
    await rig.backend.begin(1);
    const stops = () => rig.qemu.commands.filter((command) => command === 'stop');
    await vi.waitFor(() => expect(stops()).toHaveLength(2), SOON);
    await rig.guestIsPaused();
    expect(await rig.backend.plug(0)).toEqual(DONE);
    rig.backend.end();
    await rig.guestRuns();
    expect(rig.qemu.register(1, 1, 4)).toBe(2);
    expect(rig.qemu.unsafeWrites).toBe(0);
  });

  it('notices that somebody else has paused the guest since', async () => {
    const log = { ...LOG, error: vi.fn() };
    await rig.attach({ log });
    rig.qemu.emit('STOP');
    // Events arrive in their order, and this one is told of.
    rig.qemu.emit('MIGRATION', { status: 'setup' });
    await vi.waitFor(() => expect(log.error).toHaveBeenCalled(), SOON);
    await enableWithoutResume();
    expect(rig.qemu.isRunning).toBe(false);
  });

  it('that the backend gives up lets the guest go on', async () => {
    await rig.attach();
    await rig.backend.begin(1);
    rig.backend.end('failed');
    await rig.guestRuns();
    await vi.waitFor(() => expect(rig.timings[0]?.outcome).toBe('failed'), SOON);
  });

  it('places slots anew after a reset of the machine', async () => {
    await rig.attach();
    await rig.enable(1);
    rig.qemu.emit('RESET');
    await rig.enable(1);
    // A reset leaves zeros: the lower half of this address is one.
    expect(rig.timings.map((timing) => timing.placementCommands)).toEqual([8, 4]);
    expect(rig.qemu.register(1, 1, 0x14)).toBe(8);
  });

  it('places a slot anew that the backend says was reset', async () => {
    await rig.attach();
    await rig.enable(1);
    await rig.enable(1, { placementLost: true });
    expect(rig.timings.map((timing) => timing.placementCommands)).toEqual([8, 4]);
  });

  async function enableWithoutResume(): Promise<void> {
    await rig.backend.begin(1);
    await rig.backend.plug(0);
    rig.backend.end();
    await vi.waitFor(() => expect(rig.timings).toHaveLength(1), SOON);
  }
});

it('a disable asks nothing of QEMU: slots keep their places, where the backend answers all-ones', async () => {
  await rig.attach();
  await rig.enable(2);
  rig.qemu.commands.length = 0;
  expect(await Promise.all([rig.backend.unplug(0), rig.backend.unplug(1)])).toEqual([DONE, DONE]);
  expect([rig.qemu.register(1, 1, 4), rig.qemu.register(1, 2, 4)]).toEqual([2, 2]);
  // Commands arrive in their order, and these are the next enable's.
  await rig.enable(2);
  expect(rig.qemu.commands.slice(0, 2)).toEqual(['query-status', 'stop']);
});

describe('several backends of one QEMU', () => {
  it('share one pause, and never mix their port accesses', async () => {
    const other = await rig.attachToTwo();
    await Promise.all([rig.backend.begin(2), other.begin(1)]);
    const plugs = [rig.backend.plug(0), other.plug(0), rig.backend.plug(1)];
    expect(await Promise.all(plugs)).toEqual([DONE, DONE, DONE]);
    rig.backend.end();
    await allIsDone();
    // A `cont` would have come before these commands.
    expect(await other.plug(0, { placementLost: true })).toEqual(DONE);
    expect(rig.qemu.isRunning).toBe(false);
    other.end();
    await rig.guestRuns();
    expect(rig.qemu.commands.filter((command) => command === 'stop')).toHaveLength(1);
    expect(rig.qemu.commands.filter((command) => command === 'cont')).toHaveLength(1);
    expect(rig.qemu.register(0, 0x81, 4)).toBe(2);
    expect(rig.qemu.register(1, 2, 0x10)).toBe(16384);
    expect(rig.qemu.unsafeWrites).toBe(0);
  });
});

it('refuses a VF for which QEMU has no slot, and says how to start QEMU', async () => {
  await rig.attach();
  await rig.backend.begin(3);
  expect(await rig.backend.plug(2)).toMatchObject({
    result: 'refused',
    text: expect.stringContaining('no vfio-user-pci device at 0.3'),
  });
  rig.backend.end('failed');
  await rig.guestRuns();
});

it('a guest whose enables fail without end gets a burst of log lines, and no more', async () => {
  const lines: string[] = [];
  await rig.attach({ log: logInto((_level, message) => lines.push(message)) });
  for (let enable = 0; enable < 1000; enable++) {
    rig.backend.end('failed');
  }
  await vi.waitFor(() => expect(lines.join()).toContain('no VFs were enabled'), SOON);
  await allIsDone();
  expect(lines.length).toBeLessThan(500);
});
