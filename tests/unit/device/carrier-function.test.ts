// The function that is laid over a VF's slot: what a VMM sees of it, and what of the VF it reaches.
import { afterEach, beforeEach, expect, it } from 'vitest';
import { CarrierFunction } from '../../../backend/device/carrier-function.ts';
import { Offset } from '../../../backend/devices/kit/capabilities.ts';
import { Layout } from '../../../backend/devices/loopback/registers.ts';
import { POWER_MANAGEMENT } from '../../../backend/pci/spec/power-management.ts';
import { RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import {
  AS_NATIVE,
  AS_QEMU,
  At,
  BUS_MASTER,
  bar,
  DeviceUnderTest,
  MEMORY_SPACE,
  read,
  read16,
  VF_ENABLE,
  write,
  write16,
  writeBar,
} from './device-under-test.ts';

const POWER = Offset.powerManagement + POWER_MANAGEMENT.controlStatus.offset;
const D3_HOT = 3;

let device: DeviceUnderTest;
let carrier: CarrierFunction;

beforeEach(() => {
  device = new DeviceUnderTest();
  device.pf.attach(AS_NATIVE);
  carrier = new CarrierFunction(device.vf);
  device.attachSlot();
});

afterEach(() => {
  carrier.detach();
  device.close();
});

function powerOfHardware(): number {
  return device.vfHardware!.readConfig(POWER, 2) & 3;
}

it('is refused while its VF is not up, or does not answer in memory', () => {
  expect(() => carrier.attach(AS_QEMU)).toThrow('its VF is not there');
  device.enable();
  write(device.pf, At.sriovControl, [VF_ENABLE, 0]);
  expect(() => carrier.attach(AS_QEMU)).toThrow('its VF is not there');
});

it('has no capabilities and no interrupts, and is no device once it is realised', () => {
  device.enable();
  carrier.attach(AS_QEMU);
  expect(read16(carrier, 0)).toBe(0x1d0f);
  expect(read(carrier, 0x34, 1)).toEqual(Uint8Array.of(0));
  expect(carrier.shape.irqs.filter(({ index }) => index <= 2).map(({ count }) => count)).toEqual([
    0, 0, 0,
  ]);
  carrier.reset(() => {});
  expect(read16(carrier, 0)).toBe(0xffff);
  expect(read16(carrier, 2)).toBe(0xffff);
});

it("gives the VF's memory, from where its piece begins", () => {
  device.enable();
  carrier.attach(AS_QEMU);
  const own = device.vfHardware!.regionFile(RegionIndex.bar0)!;
  expect(carrier.regionFile(RegionIndex.bar0)).toEqual({
    fd: own.fd,
    offset: BigInt(Layout.memory),
  });
  expect(carrier.regionFile(2)).toBeUndefined();
});

it('shows a VMM that maps nothing what the slot shows', () => {
  device.enable();
  carrier.attach(AS_QEMU);
  writeBar(carrier, 8, 0x1234);
  expect(bar(device.vf, Layout.memory + 8)).toEqual(Uint8Array.of(0x34, 0x12, 0, 0));
  device.takeDown();
  expect(bar(carrier, 8)).toEqual(Uint8Array.of(0xff, 0xff, 0xff, 0xff));
});

it('keeps what the VMM writes to Command, until a reset', () => {
  device.enable();
  carrier.attach(AS_QEMU);
  write16(carrier, At.command, 0x0402);
  expect(read16(carrier, At.command)).toBe(0x0402);
  carrier.reset(() => {});
  expect(read16(carrier, At.command)).toBe(0);
});

it('keeps the hardware in D0 for as long as it is there, whatever the guest writes', () => {
  device.enable();
  write16(device.vf, POWER, D3_HOT);
  expect(powerOfHardware()).toBe(D3_HOT);
  carrier.attach(AS_QEMU);
  expect(powerOfHardware()).toBe(0);
  write16(device.vf, POWER, 0);
  write16(device.vf, POWER, D3_HOT);
  expect(powerOfHardware()).toBe(0);
  expect(read16(device.vf, POWER) & 3).toBe(D3_HOT);
  carrier.detach();
  expect(powerOfHardware()).toBe(D3_HOT);
});

it('is to follow its slot, which the guest has unmapped, and mapped anew', () => {
  device.enable();
  write16(device.vf, At.command, MEMORY_SPACE);
  expect(device.slotChanges).toBe(0);
  carrier.attach(AS_QEMU);
  write16(device.vf, At.command, MEMORY_SPACE | BUS_MASTER);
  expect([device.vf.isSlotSilent, device.slotChanges]).toEqual([false, 0]);
  write16(device.vf, At.command, 0x0400);
  expect([device.vf.isSlotSilent, device.slotChanges]).toEqual([true, 1]);
  write16(device.vf, At.command, MEMORY_SPACE);
  expect([device.vf.isSlotSilent, device.slotChanges]).toEqual([false, 2]);
  write16(device.vf, POWER, D3_HOT);
  expect([device.vf.isSlotSilent, device.slotChanges]).toEqual([true, 3]);
  write16(device.vf, POWER, 0);
  expect([device.vf.isSlotSilent, device.slotChanges]).toEqual([false, 4]);
});

it('that comes to a slot which does not answer is to be silent as well', () => {
  device.enable();
  write16(device.vf, At.command, 0);
  carrier.attach(AS_QEMU);
  expect([device.vf.isSlotSilent, device.slotChanges]).toEqual([true, 1]);
});

it('tells of its VF that it is mapped', () => {
  device.enable();
  expect(device.vf.hasCarrier).toBe(false);
  carrier.attach(AS_QEMU);
  expect(device.vf.hasCarrier).toBe(true);
  carrier.detach();
  expect(device.vf.hasCarrier).toBe(false);
});

it('is told as a mapping of the VF’s memory, which goes unseen from then on', () => {
  device.enable();
  carrier.attach(AS_QEMU);
  const mapped: string[] = [];
  device.vf.observers.add({ mapped: (name, region) => mapped.push(`${name} region ${region}`) });
  carrier.regionFile(carrier.pieces[0]!.carrierBar);
  expect(mapped).toEqual(['vf0 region 0']);
});
