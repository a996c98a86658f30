// What is written to lay carriers over VFs: BARs, Command, and the window of their port.
import { expect, it } from 'vitest';
import type { VfPlug } from '../../../protocol/hotplug/messages.ts';
import {
  canBeLaid,
  clearEvents,
  layingSteps,
  powerOff,
  powerOn,
} from '../../../vmm-glue/qemu/carrier-writes.ts';
import type { ConfigWrite } from '../../../vmm-glue/qemu/placement.ts';

const PORT = { routingId: 0x8000, secondaryBus: 0x81, slotControl: 0x6c };

function vf(vfIndex: number, address: bigint): VfPlug {
  return {
    vfIndex,
    generation: 1,
    routingIdOffset: vfIndex + 1,
    vendorId: 0x1234,
    deviceId: 0x10b1,
    msixVectors: 1,
    bars: [{ index: 0, size: 0x1_0000n, is64Bit: true, prefetchable: true, address }],
    carrier: {
      socketPath: '/run/carrier.sock',
      bars: [{ index: 0, vfBar: 0, offset: 0x8000n, size: 0x8000n }],
    },
  };
}

/** `bus:device.function+register=value` */
function readable(writes: readonly ConfigWrite[]): string[] {
  const hex = (value: number): string => value.toString(16);
  return writes.map(({ routingId, register, value }) => {
    const [bus, devfn] = [routingId >> 8, routingId & 0xff];
    return `${hex(bus)}:${hex(devfn >> 3)}.${devfn & 7}+${hex(register)}=${hex(value)}`;
  });
}

it('every piece goes where it is in the VF, and the window of the port around all of them', () => {
  const vfs = [vf(8, 0x38_0000_0000n), vf(9, 0x38_0001_0000n)];
  const silent = vfs[1]!;
  expect(readable(layingSteps(PORT, vfs, (vf) => vf !== silent).flat())).toEqual([
    '80:0.0+24=10001',
    '80:0.0+28=38',
    '80:0.0+2c=38',
    '80:0.0+4=6',
    '81:0.0+10=8000',
    '81:0.0+14=38',
    '81:0.0+4=2',
    '81:0.1+10=18000',
    '81:0.1+14=38',
    '81:0.1+4=0',
  ]);
});

it('a VF that the guest has not placed, or without a carrier, cannot be laid', () => {
  const { carrier: _, ...without } = vf(0, 0x8000_0000n);
  expect([vf(0, 0x8000_0000n), vf(0, 0n), without].map(canBeLaid)).toEqual([true, false, false]);
});

it("a port's power goes on and off by Slot Control, and its events are cleared with it on", () => {
  expect(readable(powerOn(PORT))).toEqual(['80:0.0+6c=1c0']);
  expect(readable(powerOff(PORT))).toEqual(['80:0.0+6c=7c0']);
  // Presence Detect Changed and Link State Changed of events; the rest of Slot Status is state.
  expect(readable(clearEvents(PORT, 0x0148_0000))).toEqual(['80:0.0+6c=10801c0']);
});

it("the port's registers are steps of their own, a carrier's BAR is one of both halves", () => {
  const steps = layingSteps(PORT, [vf(8, 0x38_0000_0000n)], () => true);
  expect(steps.map((step) => step.length)).toEqual([1, 1, 1, 1, 2, 1]);
});
