// When the device has its glue place slots ahead of an enable, and what it answers a glue that asks where they belong.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Offset } from '../../../backend/devices/kit/capabilities.ts';
import { HEADER } from '../../../backend/pci/spec/header.ts';
import { SRIOV } from '../../../backend/pci/spec/sriov.ts';
import { decodeEnableBegin, decodeSlots, encodeGetSlots } from '../../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../../protocol/hotplug/commands.ts';
import { SLOTS_MOVED_QUIET_MILLISECONDS } from '../../../protocol/hotplug/timing.ts';
import { Command } from '../../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import { AS_GLUE, type Client, SriovDeviceRig } from './sriov-device-rig.ts';

/** Of the rig's VFs. */
const VF_BAR_BYTES = 0x4000;
const VFS = 4;
const MEMORY = 2;
/** Above the low half that a test writes. */
const HIGH_HALF = 8;

let rig: SriovDeviceRig;
let qemu: Client;
let glue: Client;

beforeEach(() => {
  rig = new SriovDeviceRig();
  qemu = rig.attach(rig.device.pfEndpoint, {});
  for (const { index } of rig.device.vfs) {
    rig.attach(rig.device.vfEndpoint(index, false), {});
  }
  for (const { session } of rig.clients) {
    session.receive(encodeFrame({ id: 9, command: Command.deviceReset, flags: 0 }), []);
  }
  glue = rig.attach(rig.device.pfEndpoint, AS_GLUE);
  rig.settle();
  rig.clock.elapse(SLOTS_MOVED_QUIET_MILLISECONDS);
});

afterEach(() => rig.end());

function slotOf(vfIndex: number): Client {
  return rig.clients.find(({ session }) => session.endpoint.function === rig.device.vfs[vfIndex])!;
}

function moveVfBars(low: number): void {
  rig.write16(qemu, Offset.sriov + SRIOV.vfBar0.offset, low & 0xffff);
  rig.write16(qemu, Offset.sriov + SRIOV.vfBar0.offset + 2, low >>> 16);
  rig.write16(qemu, Offset.sriov + SRIOV.vfBar1.offset, HIGH_HALF);
}

function write32(client: Client, offset: number, value: number): void {
  rig.write16(client, offset, value & 0xffff);
  rig.write16(client, offset + 2, value >>> 16);
}

/** As a glue does it to all slots. */
function place(low: number): void {
  for (let vfIndex = 0; vfIndex < VFS; vfIndex++) {
    write32(slotOf(vfIndex), HEADER.bar0.offset, low + vfIndex * VF_BAR_BYTES);
    write32(slotOf(vfIndex), HEADER.bar1.offset, HIGH_HALF);
    rig.write16(slotOf(vfIndex), HEADER.command.offset, MEMORY);
  }
}

/** The guest gives the VF BARs an address, and the glue follows. */
function placeAhead(): void {
  moveVfBars(0x10_0000);
  expect(told()).toBe(1);
  place(0x10_0000);
}

/** How often the glue was told, after it has been quiet for long enough. */
function told(): number {
  rig.clock.elapse(SLOTS_MOVED_QUIET_MILLISECONDS);
  rig.settle();
  const all = glue.told.splice(0).filter(({ command }) => command === HotplugCommand.slotsMoved);
  return all.length;
}

function slots(firstVf: number, count: number) {
  const asked = glue.send(HotplugCommand.getSlots, encodeGetSlots({ firstVf, count }))!;
  return decodeSlots(asked.body);
}

describe('a glue is told that slots have moved', () => {
  it('once the guest has given the VF BARs an address, and not before', () => {
    expect(told()).toBe(0);
    moveVfBars(0x10_0000);
    rig.clock.elapse(SLOTS_MOVED_QUIET_MILLISECONDS - 1);
    moveVfBars(0x20_0000);
    rig.clock.elapse(SLOTS_MOVED_QUIET_MILLISECONDS - 1);
    rig.settle();
    expect(glue.told).toEqual([]);
    expect(told()).toBe(1);
  });

  it('not where they are in their places, and again after a move', () => {
    placeAhead();
    moveVfBars(0x20_0000);
    place(0x20_0000);
    expect(told()).toBe(0);
    moveVfBars(0x10_0000);
    expect(told()).toBe(1);
  });

  it('where the slot of one has lost Memory Space Enable', () => {
    placeAhead();
    rig.write16(slotOf(2), HEADER.command.offset, 0);
    expect(told()).toBe(1);
    rig.write16(slotOf(2), HEADER.command.offset, MEMORY);
    expect(told()).toBe(0);
  });

  it('where the VMM has reset one', () => {
    placeAhead();
    slotOf(1).send(Command.deviceReset, new Uint8Array());
    expect(told()).toBe(1);
    expect(slots(0, VFS).map(({ placementLost }) => placementLost)).toEqual([
      false,
      true,
      false,
      false,
    ]);
  });

  it('while VFs are on not, and once they have gone', () => {
    placeAhead();
    rig.setVfEnable(qemu, 2);
    rig.settle();
    rig.write16(slotOf(0), HEADER.command.offset, 0);
    expect(told()).toBe(0);
    rig.clearVfEnable(qemu);
    rig.settle();
    expect(told()).toBe(1);
  });

  it('when it is a new one, which knows of no slot', () => {
    placeAhead();
    glue.session.close();
    glue = rig.attach(rig.device.pfEndpoint, AS_GLUE);
    expect(told()).toBe(1);
    expect(told()).toBe(0);
  });
});

describe('a glue that asks', () => {
  it('is answered where each slot belongs, and what it has', () => {
    moveVfBars(0x10_0000);
    expect(slots(1, 2)).toMatchObject([
      { vfIndex: 1, routingIdOffset: 2, placementLost: true, slotCommand: 0 },
      { vfIndex: 2, routingIdOffset: 3, placementLost: true, slotCommand: 0 },
    ]);
    expect(slots(1, 1)[0]?.bars).toMatchObject([{ index: 0, address: 0x8_0010_4000n }]);
    place(0x10_0000);
    expect(slots(3, 9)).toMatchObject([{ vfIndex: 3, placementLost: false, slotCommand: MEMORY }]);
  });

  it('is answered none while VFs are on, have no address or one where the PF has a BAR, and where there are no more', () => {
    expect(slots(0, VFS)).toEqual([]);
    moveVfBars(0x10_0000);
    expect(slots(VFS, 1)).toEqual([]);
    const inThePlaceOfTheLast = 0x10_0000 + (VFS - 1) * VF_BAR_BYTES;
    write32(qemu, HEADER.bar0.offset, inThePlaceOfTheLast);
    write32(qemu, HEADER.bar1.offset, HIGH_HALF);
    expect(slots(0, VFS)).toEqual([]);
    write32(qemu, HEADER.bar0.offset, 0x20_0000);
    expect(slots(0, VFS)).toHaveLength(VFS);
    rig.setVfEnable(qemu, 1);
    expect(slots(0, VFS)).toEqual([]);
    rig.settle();
    expect(slots(0, VFS)).toEqual([]);
  });
});

it('an enable of VFs whose slots were placed ahead says so, the first time as well', () => {
  moveVfBars(0x10_0000);
  place(0x10_0000);
  rig.setVfEnable(qemu, 2);
  rig.settle();
  const begin = glue.told.find(({ command }) => command === HotplugCommand.enableBegin)!;
  expect(decodeEnableBegin(begin.body).placed).toBe(true);
});
