// VFs that the backend announces before they are up: the glue places them while the host still makes them.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { RUN_ON_MILLISECONDS } from '../../../protocol/hotplug/timing.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { SOON } from '../../patience.ts';
import { allIsDone, DONE, GlueRig } from './glue-rig.ts';

let rig: GlueRig;

beforeEach(async () => {
  rig = await GlueRig.start();
});

afterEach(() => rig.end());

describe('VFs that are announced while they come up', () => {
  /** Begins an enable and announces its VFs at once; gives the answers to that. */
  async function announce(numVfs: number, options = {}, readyAfterMilliseconds?: number) {
    const begun = rig.backend.begin(numVfs, readyAfterMilliseconds);
    const answers = Array.from({ length: numVfs }, (_, vfIndex) =>
      rig.backend.plug(vfIndex, options),
    );
    expect(await begun).toEqual(DONE);
    return Promise.all(answers);
  }

  it('are placed meanwhile, and nothing is left to do but to let the guest go on', async () => {
    await rig.attach();
    expect(await announce(2)).toEqual([DONE, DONE]);
    await rig.portGivenBack();
    expect([rig.qemu.register(1, 1, 4), rig.qemu.register(1, 2, 4)]).toEqual([2, 2]);
    expect(rig.qemu.register(1, 2, 0x10)).toBe(16384);
    rig.qemu.commands.length = 0;
    rig.backend.end();
    await rig.guestRuns();
    expect(rig.qemu.commands).toEqual(['cont']);
    await vi.waitFor(
      () => expect(rig.timings).toMatchObject([{ placedVfs: 2, placementCommands: 16 }]),
      SOON,
    );
    expect(rig.qemu.unsafeWrites).toBe(0);
  });

  it('are placed in one go', async () => {
    await rig.attach();
    await announce(2, { placementLost: true });
    rig.backend.end();
    await rig.guestRuns();
    expect(rig.qemu.commands.filter((command) => !command.startsWith('o'))).toEqual([
      'query-status',
      'stop',
      'i /w 0xcf8',
      'query-pci',
      'cont',
    ]);
    // The port saved, 4 and 6 for the VFs, which a reset has left with zeros, and the port restored.
    expect(rig.qemu.portCommands()).toHaveLength(1 + 4 + 6 + 1);
  });

  it('are moved when they are taken back and announced somewhere else', async () => {
    await rig.attach();
    await announce(1);
    await rig.portGivenBack();
    const moved = [rig.backend.unplug(0), rig.backend.plug(0, { address: 0x9_0000_4000n })];
    expect(await Promise.all(moved)).toEqual([DONE, DONE]);
    expect([rig.qemu.register(1, 1, 0x10), rig.qemu.register(1, 1, 0x14)]).toEqual([0x4000, 9]);
    rig.backend.end();
    await rig.guestRuns();
    expect(rig.qemu.configAddress).toBe(0x8001_0004);
  });

  it('are placed again when they are announced again because the slot was reset', async () => {
    await rig.attach();
    await announce(1);
    await rig.portGivenBack();
    rig.qemu.config.clear();
    await rig.backend.plug(0, { placementLost: true });
    expect([rig.qemu.register(1, 1, 4), rig.qemu.register(1, 1, 0x14)]).toEqual([2, 8]);
    rig.backend.end();
    await rig.guestRuns();
  });

  it('are refused when they come after the glue has given the enable up', async () => {
    const clock = new ManualClock();
    await rig.attach({ clock, enableLimitMilliseconds: 50 });
    expect(await announce(1)).toEqual([DONE]);
    clock.elapse(50);
    await rig.guestRuns();
    const again = [rig.backend.unplug(0), rig.backend.plug(0)];
    expect(await Promise.all(again)).toMatchObject([DONE, { result: 'refused', errno: 110 }]);
  });

  it('do not keep the guest paused if they do not come', async () => {
    await rig.attach();
    await announce(2);
    await rig.portGivenBack();
    rig.backend.end('failed');
    await rig.guestRuns();
    expect(rig.qemu.configAddress).toBe(0x8001_0004);
    expect(rig.qemu.unsafeWrites).toBe(0);
  });

  it('do not keep the guest paused when the backend goes away', async () => {
    const attached = await rig.attach();
    await announce(1);
    rig.backend.close();
    await attached.ended;
    expect(rig.qemu.isRunning).toBe(true);
    expect(rig.qemu.unsafeWrites).toBe(0);
  });

  it('are refused where QEMU refuses, and the others placed', async () => {
    await rig.attach();
    rig.qemu.react('o /h', 'refuse');
    expect(await announce(2)).toMatchObject([{ result: 'refused' }, DONE]);
    rig.backend.end('failed');
    await rig.guestRuns();
  });
});

describe('VFs that take their time', () => {
  /** As a host whose kernel sleeps for that long. */
  const SLOW = 100;
  let clock: ManualClock;

  beforeEach(() => {
    clock = new ManualClock();
  });

  it('leave the guest most of the time that it waits anyway, and are placed after that', async () => {
    await rig.attach({ clock });
    expect(await rig.backend.begin(1, SLOW)).toEqual(DONE);
    const placed = rig.backend.plug(0);
    clock.elapse(RUN_ON_MILLISECONDS - 1);
    expect(rig.qemu.commands).toEqual([]);
    clock.elapse(1);
    expect(await placed).toEqual(DONE);
    expect(rig.qemu.register(1, 1, 4)).toBe(2);
    rig.backend.end();
    await rig.guestRuns();
    expect(rig.qemu.commands.filter((each) => each === 'stop')).toHaveLength(1);
    expect(rig.qemu.unsafeWrites).toBe(0);
  });

  it('pause nobody when they fail before that, and their places are not wanted any more', async () => {
    await rig.attach({ clock });
    await rig.backend.begin(1, SLOW);
    const placed = rig.backend.plug(0);
    rig.backend.end('failed');
    expect(await placed).toMatchObject({ result: 'refused', text: 'the enable is over' });
    await vi.waitFor(
      () => expect(rig.timings).toMatchObject([{ outcome: 'failed', pauseMilliseconds: 0 }]),
      SOON,
    );
    clock.elapse(1_000);
    expect(clock.pending).toBe(0);
    expect(rig.qemu.commands).toEqual([]);
  });

  it('are refused when the guest cannot be paused after all', async () => {
    await rig.attach({ clock });
    rig.qemu.react('stop', 'refuse');
    await rig.backend.begin(1, SLOW);
    clock.elapse(RUN_ON_MILLISECONDS);
    expect(await rig.backend.plug(0)).toMatchObject({ result: 'refused' });
    expect(await rig.backend.plug(0)).toMatchObject({ result: 'refused' });
    expect(rig.qemu.isRunning).toBe(true);
  });

  it('have a guest that stands still already for another backend kept so', async () => {
    const other = await rig.attachToTwo();
    await other.begin(1);
    await rig.guestIsPaused();
    await rig.backend.begin(1, SLOW);
    await other.plug(0);
    other.end();
    await allIsDone();
    // A `cont` would have come before these commands.
    expect(await rig.backend.plug(0)).toEqual(DONE);
    expect(rig.qemu.isRunning).toBe(false);
    rig.backend.end();
    await rig.guestRuns();
    expect(rig.qemu.commands.filter((each) => each === 'stop')).toHaveLength(1);
  });
});
