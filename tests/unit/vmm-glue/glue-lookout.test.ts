// What the glue says of things in QEMU that the devices cannot live with.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SILENT } from '../../../protocol/log.ts';
import { SOON } from '../../patience.ts';
import { GlueRig } from './glue-rig.ts';

let rig: GlueRig;
const log = { ...SILENT, error: vi.fn() };
const said = (): string => log.error.mock.calls.flat().join('\n');

beforeEach(async () => {
  rig = await GlueRig.start();
  log.error.mockClear();
});

afterEach(() => rig.end());

describe('RAM that is private to QEMU', () => {
  const PRIVATE = { id: 'dimm7', size: 2 ** 30, share: false };

  it('is named with the fix when the glue attaches', async () => {
    rig.qemu.memoryBackends.push(PRIVATE);
    await rig.attach({ log });
    expect(said()).toMatch(/guest RAM dimm7 \(1024 MiB\) is private to QEMU.*share=on/);
    expect(said()).not.toContain('ram0');
  });

  it.each(['ACPI_DEVICE_OST', 'MEMORY_DEVICE_SIZE_CHANGE'])(
    'is named once when it is plugged (%s)',
    async (event) => {
      await rig.attach({ log });
      rig.qemu.memoryBackends.push(PRIVATE);
      rig.qemu.emit(event);
      rig.qemu.emit(event);
      await vi.waitFor(
        () => expect(rig.qemu.commands.filter((each) => each === 'query-memdev')).toHaveLength(2),
        SOON,
      );
      await rig.enable(1);
      expect(log.error).toHaveBeenCalledTimes(1);
    },
  );
});

it('a machine that is saved or migrated is told of once for each time', async () => {
  await rig.attach({ log });
  for (const status of ['setup', 'active', 'completed', 'setup', 'failed']) {
    rig.qemu.emit('MIGRATION', { status });
  }
  await rig.enable(1);
  expect(log.error).toHaveBeenCalledTimes(2);
  expect(said()).toContain('saved or migrated');
});

describe('devices that QEMU has reset behind the guest’s back', () => {
  const asked = (): number => rig.qemu.commands.filter((each) => each === 'query-pci').length;
  /** Until the glue has asked, and has the answer: the commands of an enable go behind it. */
  const stopAndGo = async (meanwhile: () => void): Promise<void> => {
    const before = asked();
    rig.qemu.emit('STOP');
    meanwhile();
    rig.qemu.emit('RESUME');
    await vi.waitFor(() => expect(asked()).toBeGreaterThan(before), SOON);
    await rig.enable(1);
  };

  it('are named when the guest goes on after a loadvm', async () => {
    await rig.attach({ log });
    await stopAndGo(() => {});
    expect(log.error).not.toHaveBeenCalled();
    await stopAndGo(() => {
      rig.qemu.barAddress = -1;
    });
    await vi.waitFor(() => expect(said()).toContain('sriov-pf0: the device was reset'), SOON);
  });

  it('are in order when the whole machine was reset', async () => {
    await rig.attach({ log });
    await stopAndGo(() => {});
    await stopAndGo(() => {
      rig.qemu.barAddress = -1;
      rig.qemu.emit('RESET');
    });
    expect(log.error).not.toHaveBeenCalled();
  });
});

it('a QEMU that refuses to tell of that is served all the same', async () => {
  rig.qemu.react('migrate-set-capabilities', 'refuse');
  rig.qemu.react('query-memdev', 'refuse');
  await rig.attach({ log });
  expect(log.error).not.toHaveBeenCalled();
});
