// However an enable ends, and whoever goes away meanwhile, the guest is never left paused.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ENABLE_LIMIT_MILLISECONDS } from '../../../protocol/hotplug/timing.ts';
import { makeGate } from '../../fakes/gate.ts';
import { FakeBackend } from '../../fakes/hotplug-backend.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { SOON } from '../../patience.ts';
import { DONE, GlueRig } from './glue-rig.ts';

let rig: GlueRig;

beforeEach(async () => {
  rig = await GlueRig.start();
});

afterEach(() => rig.end());

describe('the guest runs on', () => {
  it('when QEMU refuses a port write: the VF is refused, and the next enable writes everything', async () => {
    await rig.attach();
    rig.qemu.react('o /h', 'refuse');
    await rig.backend.begin(1);
    expect(await rig.backend.plug(0)).toMatchObject({ result: 'refused', errno: 5 });
    rig.backend.end('failed');
    await rig.guestRuns();
    await rig.enable(1);
    expect(rig.timings.at(-1)!.placementCommands).toBe(8);
  });

  it('when QEMU refuses to stop: the enable is refused, and nothing is written', async () => {
    await rig.attach();
    rig.qemu.react('stop', 'refuse');
    await rig.backend.begin(1);
    expect(await rig.backend.plug(0)).toMatchObject({ result: 'refused' });
    // Of a guest that ran it says nothing of use, and is forgotten.
    expect(rig.qemu.portCommands()).toEqual(['i /w 0xcf8']);
    rig.qemu.configAddress = 0x8001_0104;
    rig.backend.end('failed');
    await rig.enable(1);
    expect(rig.qemu.configAddress).toBe(0x8001_0104);
    expect(rig.qemu.isRunning).toBe(true);
  });

  it('when QEMU answers the stop too late: it is resumed after it did stop', async () => {
    const clock = new ManualClock();
    const late = makeGate();
    await rig.attach({ commandMilliseconds: 30, clock });
    rig.qemu.react('stop', { first: () => late.opened });
    await rig.backend.begin(1);
    clock.elapse(30);
    expect(await rig.backend.plug(0)).toMatchObject({ result: 'refused' });
    late.open();
    await vi.waitFor(() => expect(rig.qemu.commands).toContain('cont'), SOON);
    await rig.guestRuns();
  });

  it('when QEMU is slow, with the VFs placed', async () => {
    const clock = new ManualClock();
    await rig.attach({ commandMilliseconds: 1000, clock });
    rig.qemu.react('', { first: () => clock.elapse(100) }, 20);
    expect(await rig.enable(1)).toEqual([DONE, DONE]);
  });

  it('when QEMU refuses to continue: it is asked again', async () => {
    await rig.attach();
    await rig.backend.begin(1);
    await rig.guestIsPaused();
    rig.qemu.react('cont', 'refuse', 2);
    rig.backend.end('failed');
    await rig.guestRuns();
    expect(rig.qemu.commands.filter((command) => command === 'cont')).toHaveLength(3);
  });

  it('when QEMU refuses to continue, and then to stop for the next enable', async () => {
    const clock = new ManualClock();
    await rig.attach({ clock });
    await rig.backend.begin(1);
    await rig.guestIsPaused();
    rig.qemu.react('cont', 'refuse');
    rig.backend.end('failed');
    await vi.waitFor(() => expect(rig.qemu.commands).toContain('cont'), SOON);
    rig.qemu.react('stop', 'refuse');
    await rig.backend.begin(1);
    expect(await rig.backend.plug(0)).toMatchObject({ result: 'refused' });
    rig.backend.end('failed');
    await vi.waitFor(() => {
      clock.elapse(5_000);
      expect(rig.qemu.isRunning).toBe(true);
    }, SOON);
  });

  it('when the connection breaks in the middle of a placement: it is resumed over a new one', async () => {
    await rig.attach();
    await rig.backend.begin(2);
    await rig.backend.plug(0);
    rig.qemu.react('o /w 0xcfc', 'disconnect');
    expect(await rig.backend.plug(1)).toMatchObject({ result: 'refused' });
    rig.backend.end('failed');
    await rig.guestRuns();
    expect(rig.qemu.configAddress).toBe(0x8001_0004);
    await rig.enable(2);
    expect(rig.qemu.register(1, 2, 0x10)).toBe(16384);
  });

  it('when the backend goes away in the middle of an enable', async () => {
    const attached = await rig.attach();
    await rig.backend.begin(2);
    rig.backend.close();
    await rig.guestRuns();
    await attached.ended;
  });

  it('when the backend never ends the enable, and what it plugs later is refused', async () => {
    const clock = new ManualClock();
    await rig.attach({ clock });
    await rig.backend.begin(2);
    clock.elapse(ENABLE_LIMIT_MILLISECONDS);
    await vi.waitFor(() => expect(rig.timings).toHaveLength(1), SOON);
    await rig.guestRuns();
    expect(await rig.backend.plug(0)).toMatchObject({ result: 'refused', errno: 110 });
    expect(rig.timings[0]).toMatchObject({ outcome: 'abandoned' });
    expect(rig.qemu.portCommands().filter((command) => command.startsWith('o'))).toEqual([]);
  });

  it('when the glue is ended in the middle of an enable', async () => {
    const attached = await rig.attach();
    await rig.backend.begin(1);
    await rig.guestIsPaused();
    expect(noteOf(rig.qemu.path)).not.toBe('');
    await attached.close();
    rig.glue = undefined;
    expect(rig.qemu.isRunning).toBe(true);
    expect(existsSync(`${rig.qemu.path}.sriov-glue`)).toBe(false);
  });

  it('by the next glue, when QEMU cannot be told at the end', async () => {
    const attached = await rig.attach();
    await rig.backend.begin(1);
    await rig.guestIsPaused();
    await rig.qemu.vanish();
    await attached.close();
    rig.glue = undefined;
    expect(JSON.parse(noteOf(rig.qemu.path))).toHaveProperty('qemu');
  });

  it('when the glue before this one was killed with the guest paused', async () => {
    const first = await rig.attach();
    await rig.backend.begin(1);
    await rig.backend.plug(0);
    // What a killed process leaves: its lock is gone, what it wrote stays.
    const note = noteOf(rig.qemu.path);
    await first.close();
    writeFileSync(`${rig.qemu.path}.sriov-glue`, note);
    rig.qemu.emit('STOP');
    rig.qemu.configAddress = 0x8001_0104;
    rig.backend = new FakeBackend();
    await rig.attach();
    await rig.guestRuns();
    expect(rig.qemu.configAddress).toBe(0x8001_0004);
  });

  it('when it is suspended to RAM, where QEMU says that it does not run', async () => {
    await rig.attach();
    rig.qemu.isRunning = false;
    rig.qemu.status = 'suspended';
    await rig.enable(1);
    expect(rig.qemu.isRunning).toBe(true);
  });

  it('unless it was paused by somebody else before this glue came', async () => {
    rig.qemu.emit('STOP');
    writeFileSync(`${rig.qemu.path}.sriov-glue`, '{"qemu":"another one"}');
    await rig.attach();
    expect(rig.qemu.isRunning).toBe(false);
  });
});

it('a guest that has woken since the glue came is paused before anything is written', async () => {
  rig.qemu.isRunning = false;
  rig.qemu.status = 'suspended';
  await rig.attach();
  // QEMU tells of it by the event WAKEUP alone.
  rig.qemu.isRunning = true;
  rig.qemu.status = 'running';
  expect(await rig.enable(1)).toEqual([DONE, DONE]);
  expect(rig.qemu.unsafeWrites).toBe(0);
});

function noteOf(qmpPath: string): string {
  return readFileSync(`${qmpPath}.sriov-glue`, 'utf8');
}
