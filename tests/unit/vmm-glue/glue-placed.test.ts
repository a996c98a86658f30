// An enable of VFs whose slots are in place: nothing is written, and the guest is paused only where its VFs take longer than it
// waits by itself.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { RUN_ON_MILLISECONDS } from '../../../protocol/hotplug/timing.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { SOON } from '../../patience.ts';
import { allIsDone, DONE, GlueRig } from './glue-rig.ts';

let rig: GlueRig;
let clock: ManualClock;

beforeEach(async () => {
  rig = await GlueRig.start();
  clock = new ManualClock();
  await rig.attach({ clock });
  await rig.enable(2);
  await rig.guestRuns();
  rig.qemu.commands.length = 0;
  rig.timings.length = 0;
});

afterEach(() => rig.end());

const IN_PLACE = { slotCommand: 2 };

/** A VF that has moved, against what its enable said. */
async function expectMovedToBePlaced(): Promise<void> {
  const moved = { ...IN_PLACE, address: 0x9_0000_4000n };
  expect(await rig.backend.plug(0, moved)).toEqual(DONE);
  expect([rig.qemu.register(1, 1, 0x10), rig.qemu.register(1, 1, 0x14)]).toEqual([0x4000, 9]);
  rig.backend.end();
  await rig.guestRuns();
  expect(rig.qemu.unsafeWrites).toBe(0);
}

describe('VFs whose slots are in place', () => {
  it('are there without a command and without a pause', async () => {
    expect(await rig.backend.begin(2, 0, true)).toEqual(DONE);
    const answers = [rig.backend.plug(0, IN_PLACE), rig.backend.plug(1, IN_PLACE)];
    expect(await Promise.all(answers)).toEqual([DONE, DONE]);
    rig.backend.end();
    await allIsDone();
    clock.elapse(1000);
    expect(rig.qemu.commands).toEqual([]);
    expect(rig.timings).toMatchObject([
      { outcome: 'enabled', placedVfs: 2, placementCommands: 0, pauseMilliseconds: 0 },
    ]);
  });

  it('have the guest paused for what they take longer than it waits', async () => {
    expect(await rig.backend.begin(1, 200, true)).toEqual(DONE);
    expect(await rig.backend.plug(0, IN_PLACE)).toEqual(DONE);
    clock.elapse(RUN_ON_MILLISECONDS - 1);
    await allIsDone();
    expect(rig.qemu.commands).toEqual([]);
    clock.elapse(1);
    await rig.guestIsPaused();
    rig.backend.end();
    await rig.guestRuns();
    expect(rig.qemu.portCommands()).toEqual([]);
  });

  it('have nothing looked up while the guest stands still, also where they are announced by then', async () => {
    expect(await rig.backend.begin(1, 200, true)).toEqual(DONE);
    clock.elapse(RUN_ON_MILLISECONDS);
    await rig.guestIsPaused();
    expect(await rig.backend.plug(0, IN_PLACE)).toEqual(DONE);
    rig.backend.end();
    await rig.guestRuns();
    expect(rig.qemu.commands).toEqual(['query-status', 'stop', 'cont']);
  });

  it('are looked up all the same where one has moved', async () => {
    expect(await rig.backend.begin(1, 200, true)).toEqual(DONE);
    clock.elapse(RUN_ON_MILLISECONDS);
    await rig.guestIsPaused();
    await expectMovedToBePlaced();
  });
});

describe('a slot of which the backend says that it is in place', () => {
  it('and which has moved is placed, with the guest paused at once', async () => {
    expect(await rig.backend.begin(1, 0, true)).toEqual(DONE);
    await expectMovedToBePlaced();
  });

  it('is not taken for that where its Command was lost: it is written alone', async () => {
    rig.qemu.config.set(0x8001_0104, 0);
    expect(await rig.backend.begin(1, 0, false)).toEqual(DONE);
    expect(await rig.backend.plug(0, { slotCommand: 0 })).toEqual(DONE);
    expect(rig.timings).toEqual([]);
    rig.backend.end();
    await rig.guestRuns();
    await vi.waitFor(() => expect(rig.timings).toMatchObject([{ placementCommands: 2 }]), SOON);
    expect(rig.qemu.register(1, 1, 4)).toBe(2);
  });

  it('after a reset of the machine is placed anew, whatever the backend says', async () => {
    rig.qemu.config.clear();
    rig.qemu.emit('RESET');
    await allIsDone();
    expect(await rig.backend.begin(1, 0, true)).toEqual(DONE);
    expect(await rig.backend.plug(0, IN_PLACE)).toEqual(DONE);
    rig.backend.end();
    await rig.guestRuns();
    expect(rig.qemu.register(1, 1, 0x14)).toBe(8);
  });
});
