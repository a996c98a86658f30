import { afterEach, beforeEach, expect, it } from 'vitest';
import { whenOver } from '../../../backend/device/hold.ts';
import { Offset } from '../../../backend/devices/kit/capabilities.ts';
import { POWER_MANAGEMENT } from '../../../backend/pci/spec/power-management.ts';
import { RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { AS_QEMU, At, BUS_MASTER, DeviceUnderTest, MEMORY_SPACE } from './device-under-test.ts';

const POWER_CONTROL = Offset.powerManagement + POWER_MANAGEMENT.controlStatus.offset;

let device: DeviceUnderTest;
let answers: number[];

beforeEach(() => {
  device = new DeviceUnderTest();
  device.pf.attach(AS_QEMU);
  device.pf.reset(() => {});
  answers = [];
});
afterEach(() => device.close());

function write(offset: number, value: number): void {
  const bytes = new Uint8Array([value, 0]);
  device.pf.writeRegion(RegionIndex.config, offset, bytes);
  whenOver(device.pf.takeHolds(), () => answers.push(value));
}

it('answers a write of Command at once', () => {
  write(At.command, MEMORY_SPACE | BUS_MASTER);
  expect(answers).toEqual([6]);
});

it.each([
  ['Command', At.command],
  ['the power state', POWER_CONTROL],
])(
  'keeps the answer to a write of %s until the host has finished, so that no BAR is mapped too early',
  (_, offset) => {
    device.pf.hostBusy(true);
    write(offset, 2);
    write(offset, 0);
    expect(answers).toEqual([]);
    device.pf.hostBusy(false);
    expect(answers).toEqual([2, 0]);
  },
);

it('answers other writes meanwhile', () => {
  device.pf.hostBusy(true);
  write(At.numVfs, 1);
  write(At.deviceControl, 3);
  expect(answers).toEqual([1, 3]);
});

it('answers at last when the host takes too long', () => {
  device.pf.hostBusy(true);
  write(At.command, MEMORY_SPACE);
  device.pf.releaseAnswers();
  expect(answers).toEqual([2]);
});
