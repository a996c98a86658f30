// A VM whose slots map regions anew when they are told to: it needs neither carriers nor VMs that open VFs by themselves.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Offset } from '../../../backend/devices/kit/capabilities.ts';
import { POWER_MANAGEMENT } from '../../../backend/pci/spec/power-management.ts';
import { SRIOV } from '../../../backend/pci/spec/sriov.ts';
import { decodeVfPlug } from '../../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../../protocol/hotplug/commands.ts';
import { decodeRegionChanged } from '../../../protocol/hotplug/region-changed.ts';
import { UNMAP_TIMEOUT_MILLISECONDS } from '../../../protocol/hotplug/timing.ts';
import { Command, RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import { HeaderFlag, RegionFlag, RegionInfo } from '../../../protocol/vfio-user/messages.ts';
import { decodeRegionInfo } from '../../../protocol/vfio-user/region-info.ts';
import type { SentFrame } from '../../fakes/recording-connection.ts';
import { AS_GLUE, type Client, SriovDeviceRig } from './sriov-device-rig.ts';

const CAN_REMAP = { region_changed: { version: 1 } };
const VF_MEMORY_SPACE = 0x8;
const VF_ENABLE = 0x1;

let rig: SriovDeviceRig;
let qemu: Client;
let glue: Client;
let slots: Client[];

beforeEach(() => {
  rig = new SriovDeviceRig();
  qemu = rig.attach(rig.device.pfEndpoint, CAN_REMAP);
  glue = rig.attach(rig.device.pfEndpoint, AS_GLUE);
  slots = rig.device.vfs.map(({ index }) =>
    rig.attach(rig.device.vfEndpoint(index, false), CAN_REMAP),
  );
  for (const slot of slots) {
    slot.answers = false;
  }
  for (const { session } of [qemu, ...slots]) {
    session.receive(encodeFrame({ id: 9, command: Command.deviceReset, flags: 0 }), []);
  }
  rig.settle();
});

afterEach(() => {
  for (const slot of slots) {
    answerAll(slot);
  }
  rig.end();
});

/** The regions that a client was told of since the last look, and has not answered for. */
function changed(slot: Client): number[] {
  return changes(slot).map(({ body }) => decodeRegionChanged(body));
}

function changes(slot: Client): SentFrame[] {
  return slot.told.filter(({ command }) => command === HotplugCommand.regionChanged);
}

function answer(slot: Client): void {
  for (const { id, command } of slot.told.splice(0)) {
    const head = { id, command, flags: HeaderFlag.reply };
    slot.session.receive(encodeFrame(head, new Uint8Array(0)), []);
  }
  rig.settle();
}

/** Until it is told nothing more. */
function answerAll(slot: Client): void {
  while (slot.told.length > 0) {
    answer(slot);
  }
}

function regionInfo(slot: Client): { mmap: boolean; areas: number; fds: number } {
  const request = { argsz: 4096, flags: 0, index: 0, capOffset: 0, size: 0n, offset: 0n };
  const reply = slot.send(Command.deviceGetRegionInfo, RegionInfo.encode(request))!;
  const { flags, areas } = decodeRegionInfo(reply.body);
  return { mmap: (flags & RegionFlag.mmap) !== 0, areas: areas.length, fds: reply.fds.length };
}

function enable(numVfs = 2): void {
  rig.setVfEnable(qemu, numVfs);
  rig.settle();
}

function control(value: number): void {
  rig.write16(qemu, Offset.sriov + SRIOV.control.offset, value);
  rig.settle();
}

describe('a slot whose client maps regions anew', () => {
  it('is told what may be mapped one day, without a file', () => {
    expect(regionInfo(slots[0]!)).toEqual({ mmap: true, areas: 1, fds: 0 });
  });

  it('gets the file when its VF is up, of which it is told, and no carrier beside it', () => {
    enable();
    expect(changed(slots[0]!)).toEqual([RegionIndex.bar0]);
    expect(changed(slots[1]!)).toEqual([RegionIndex.bar0]);
    expect(changed(slots[2]!)).toEqual([]);
    expect(regionInfo(slots[0]!)).toEqual({ mmap: true, areas: 1, fds: 1 });
    expect(rig.status().vfs[0]?.memory).toBe('mapped, by the VMM');
    const plugs = glue.told.filter(({ command }) => command === HotplugCommand.vfPlug);
    expect(plugs.map(({ body }) => decodeVfPlug(body).carrier)).toEqual([undefined, undefined]);
  });

  it('loses it while VF Memory Space Enable is off', () => {
    enable();
    control(VF_ENABLE | VF_MEMORY_SPACE);
    answerAll(slots[0]!);
    control(VF_ENABLE);
    expect(changed(slots[0]!)).toEqual([RegionIndex.bar0]);
    expect(regionInfo(slots[0]!)).toEqual({ mmap: true, areas: 1, fds: 0 });
    answerAll(slots[0]!);
    control(VF_ENABLE | VF_MEMORY_SPACE);
    expect(changed(slots[0]!)).toEqual([RegionIndex.bar0]);
    expect(regionInfo(slots[0]!).fds).toBe(1);
  });

  it('is told once more, not as often as it changes, when it answers late', () => {
    enable();
    for (let round = 0; round < 10; round++) {
      control(VF_ENABLE);
      control(VF_ENABLE | VF_MEMORY_SPACE);
    }
    expect(changes(slots[0]!)).toHaveLength(1);
    answer(slots[0]!);
    expect(changes(slots[0]!)).toHaveLength(1);
    answer(slots[0]!);
    expect(changes(slots[0]!)).toHaveLength(0);
  });

  it('keeps the host from removing the VF until it has let go of it', () => {
    enable();
    slots.forEach(answerAll);
    control(0);
    expect(changed(slots[0]!)).toEqual([RegionIndex.bar0]);
    expect(rig.host.asked).toEqual(['createVfs']);
    answerAll(slots[0]!);
    expect(rig.host.asked).toEqual(['createVfs']);
    answerAll(slots[1]!);
    expect(rig.host.asked).toEqual(['createVfs', 'releaseVfs', 'destroyVfs']);
    expect(rig.status().phase).toBe('disabled');
  });

  it('that never answers leaves it to the host to say whether somebody holds the VF', () => {
    enable();
    control(0);
    rig.clock.elapse(UNMAP_TIMEOUT_MILLISECONDS - 1);
    rig.settle();
    expect(rig.host.asked).toEqual(['createVfs']);
    rig.clock.elapse(1);
    rig.settle();
    expect(rig.host.asked).toEqual(['createVfs', 'releaseVfs', 'destroyVfs']);
    expect(rig.log).toContain('warn: a VMM has not unmapped its VFs within 2000 ms');
  });

  it('that goes instead has let go', () => {
    enable();
    control(0);
    for (const slot of slots) {
      slot.session.close();
    }
    rig.settle();
    expect(rig.status().phase).toBe('disabled');
  });

  it('leaves the hardware in D0, whatever Power State it writes', () => {
    enable();
    const register = Offset.powerManagement + POWER_MANAGEMENT.controlStatus.offset;
    rig.write16(slots[0]!, register, 3);
    expect(rig.opened[1]!.readConfig(register, 2) & 3).toBe(0);
  });
});

it('a slot whose client cannot do that is told nothing, and nothing of it may be mapped', () => {
  const stock = slots[0]!;
  stock.session.close();
  slots[0] = rig.attach(rig.device.vfEndpoint(0, false), {});
  enable();
  expect(slots[0].told).toEqual([]);
  expect(regionInfo(slots[0])).toEqual({ mmap: false, areas: 0, fds: 0 });
});
