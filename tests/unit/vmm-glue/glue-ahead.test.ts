// Slots that are placed before an enable: in short pauses, from what is so while the guest stands still, never over what the
// guest has there; and an enable that then takes nothing.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SLOTS_ANSWER_MILLISECONDS } from '../../../protocol/hotplug/timing.ts';
import { FakeBackend } from '../../fakes/hotplug-backend.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import type { FakeFunction } from '../../fakes/qemu-monitor.ts';
import { SOON } from '../../patience.ts';
import { allIsDone, DONE, GlueRig } from './glue-rig.ts';

const SLOTS = 10;
const LOST = { placementLost: true };
const IN_PLACE = { slotCommand: 2 };
/** Commands of a pause that look where the bus is, and those of a slot: its BAR, its Command. */
const BUS_LOOKUP = 1;
const COMMANDS_OF_SLOT = 2;
const HIGH = 0x8_0000_0000n;
const SLOT_BYTES = 0x4000n;
const OTHER = { id: 'other', devfn: 0xf8, socketPath: '/run/else.sock', barAddress: 0xfd00_0000 };

let rig: GlueRig;
let clock: ManualClock;

beforeEach(async () => {
  rig = await GlueRig.start();
  rig.qemu.mmcfg = 0xb000_0000;
  for (let vfIndex = 2; vfIndex < SLOTS; vfIndex++) {
    const socketPath = `/run/backend/vf${vfIndex}.sock`;
    rig.qemu.functions.push({
      id: `sriov-pf0-vf${vfIndex}`,
      bus: 1,
      devfn: vfIndex + 1,
      socketPath,
    });
  }
  clock = new ManualClock();
  await rig.attach({ clock });
  rig.qemu.qtestCommands.length = 0;
});

afterEach(() => rig.end());

/** Places that many, and waits until it is done. */
async function placeAhead(count: number, options = LOST): Promise<void> {
  rig.backend.moveSlots(count, options);
  await isDone();
}

/** The glue has asked until there was nothing more to place, and lets the guest run. */
async function isDone(): Promise<void> {
  await vi.waitFor(() => expect(rig.backend.askedInVain).toBe(true), SOON);
  await rig.guestRuns();
}

function placedAt(vfIndex: number): { low: number; command: number | undefined } {
  const register = (at: number) => rig.qemu.register(1, vfIndex + 1, at);
  return { low: register(0x10) ?? 0, command: register(4) };
}

describe('slots of VFs that are off', () => {
  it('are placed in pauses of at most eight commands, between which the guest runs', async () => {
    await placeAhead(SLOTS);
    for (let vfIndex = 0; vfIndex < SLOTS; vfIndex++) {
      expect(placedAt(vfIndex)).toEqual({ low: vfIndex * 0x4000, command: 2 });
    }
    expect(rig.qemu.unsafeWrites).toBe(0);
    expect(Math.max(...rig.qemu.qtestCommandsOfPauses)).toBeLessThanOrEqual(8);
    expect(rig.qemu.qtestCommandsOfPauses.length).toBeGreaterThan(2);
  });

  it('are fewer in each pause where QEMU takes long for one, so that it ends in time', async () => {
    rig.qemu.onQtestCommand = (line) => clock.elapse(line.startsWith('writew') ? 1.4 : 0);
    await placeAhead(SLOTS);
    expect(Math.max(...rig.qemu.qtestCommandsOfPauses)).toBe(BUS_LOOKUP + 2 * COMMANDS_OF_SLOT);
    rig.qemu.qtestCommandsOfPauses.length = 0;
    rig.qemu.onQtestCommand = (line) => clock.elapse(line.startsWith('writew') ? 2 : 0);
    await placeAhead(SLOTS);
    expect(Math.max(...rig.qemu.qtestCommandsOfPauses)).toBe(BUS_LOOKUP + COMMANDS_OF_SLOT);
  });

  it('are all placed, however many there are', async () => {
    const many = 200;
    for (let vfIndex = SLOTS; vfIndex < many; vfIndex++) {
      rig.qemu.functions.push({
        id: `sriov-pf0-vf${vfIndex}`,
        bus: 1,
        devfn: vfIndex + 1,
        socketPath: `/run/backend/vf${vfIndex}.sock`,
      });
    }
    await rig.glue!.close();
    rig.backend = new FakeBackend();
    await rig.attach({ clock });
    await placeAhead(many);
    expect(placedAt(many - 1)).toEqual({ low: (many - 1) * 0x4000, command: 2 });
  });

  it('that were placed come up without a command and without a pause, the first time as well', async () => {
    await placeAhead(2);
    rig.qemu.commands.length = 0;
    expect(await rig.backend.begin(2, 0, true)).toEqual(DONE);
    const answers = [rig.backend.plug(0, IN_PLACE), rig.backend.plug(1, IN_PLACE)];
    expect(await Promise.all(answers)).toEqual([DONE, DONE]);
    rig.backend.end();
    await allIsDone();
    expect(rig.qemu.commands).toEqual([]);
    expect(rig.timings).toMatchObject([
      { outcome: 'enabled', placedVfs: 2, placementCommands: 0, pauseMilliseconds: 0 },
    ]);
  });

  it('go where they belong when the guest stands still, not where they did when that was told', async () => {
    rig.qemu.react('stop', {
      first: () => {
        rig.backend.slotsNow = rig.backend.slotsNow.map((slot) => ({
          ...slot,
          bars: slot.bars.map((bar) => ({ ...bar, address: bar.address + 0x10_0000n })),
        }));
      },
    });
    await placeAhead(1);
    expect(placedAt(0)).toEqual({ low: 0x10_0000, command: 2 });
    expect(rig.qemu.qtestCommands).toEqual([
      'readl 0xb0008018',
      'write 0xb0101010 0x8 0x0000100008000000',
      'writew 0xb0101004 0x2',
    ]);
  });

  it('are left alone where the guest has set VF Enable meanwhile', async () => {
    rig.qemu.react('stop', {
      first: () => {
        rig.backend.slotsNow = [];
      },
    });
    await placeAhead(2);
    expect(rig.qemu.qtestCommands).toEqual(['readl 0xb0008018']);
  });

  it('are not laid over another function that the guest has put there', async () => {
    rig.qemu.functions.push({ ...OTHER, bus: 0, barAddress: Number(HIGH + SLOT_BYTES) });
    await placeAhead(3);
    expect([0, 1, 2].map((vfIndex) => placedAt(vfIndex).command)).toEqual([2, undefined, 2]);
  });

  it('are not laid over another function of their bus that the guest puts there while it is being stopped', async () => {
    const other: FakeFunction = { ...OTHER, bus: 1 };
    rig.qemu.functions.push(other);
    rig.qemu.react('stop', {
      first: () => {
        other.barAddress = Number(HIGH + SLOT_BYTES);
      },
    });
    await placeAhead(3);
    expect([0, 1, 2].map((vfIndex) => placedAt(vfIndex).command)).toEqual([2, undefined, 2]);
  });

  it('on a bus of their own are placed in pauses in which QEMU lists no functions', async () => {
    await placeAhead(SLOTS);
    const pauses = rig.qemu.commands.join(' ').match(/stop.*?cont/g)!;
    expect(new Set(pauses)).toEqual(new Set(['stop qom-get cont']));
    expect(rig.qemu.commands.filter((command) => command === 'query-pci')).toHaveLength(1);
  });

  it('are found where the guest numbers their bus anew while it is being stopped', async () => {
    rig.qemu.react('stop', {
      first: () => {
        rig.qemu.portBus = 2;
      },
    });
    await placeAhead(1);
    expect(rig.qemu.qtestCommands).toEqual([
      'readl 0xb0008018',
      'writel 0xb0201014 0x8',
      'writew 0xb0201004 0x2',
    ]);
  });

  it('that have lost Memory Space Enable alone take one command', async () => {
    await placeAhead(2);
    rig.qemu.qtestCommands.length = 0;
    await placeAhead(2, { ...LOST, placementLost: false });
    expect(rig.qemu.qtestCommands).toEqual([
      'readl 0xb0008018',
      'writew 0xb0101004 0x2',
      'writew 0xb0102004 0x2',
    ]);
  });

  it('that are in their places cost neither a pause nor a command', async () => {
    await placeAhead(2);
    rig.qemu.commands.length = 0;
    rig.backend.moveSlots(2, IN_PLACE);
    await isDone();
    expect(rig.qemu.commands).toEqual([]);
  });
});

it('a glue whose backend goes meanwhile lets the guest run on', async () => {
  rig.qemu.react('stop', { first: () => rig.backend.close() });
  rig.backend.moveSlots(SLOTS, LOST);
  await vi.waitFor(() => expect(rig.qemu.commands).toContain('cont'), SOON);
  expect(rig.qemu.isRunning).toBe(true);
});

describe('a backend that does not say where slots belong', () => {
  const SILENT_BACKEND = new Promise<never>(() => {});

  it('has the guest, and the enable of another backend, wait for a second at most', async () => {
    rig.backend.moveSlots(2, LOST);
    rig.qemu.react('stop', {
      first: () => {
        rig.backend.slots = () => SILENT_BACKEND;
      },
    });
    await rig.guestIsPaused();
    await vi.waitFor(() => {
      clock.elapse(SLOTS_ANSWER_MILLISECONDS);
      expect(rig.qemu.commands).toContain('cont');
    }, SOON);
    await rig.guestRuns();
    expect(rig.qemu.qtestCommands).toEqual(['readl 0xb0008018']);
  });

  it('does not keep the glue from ending', async () => {
    const asked = vi.fn(() => SILENT_BACKEND);
    rig.backend.slots = asked;
    rig.backend.moveSlots(2, LOST);
    await vi.waitFor(() => expect(asked).toHaveBeenCalled(), SOON);
    const closed = rig.glue!.close();
    rig.glue = undefined;
    clock.elapse(SLOTS_ANSWER_MILLISECONDS);
    await closed;
  });
});
