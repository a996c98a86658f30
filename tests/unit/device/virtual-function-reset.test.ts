// What resets of a VF keep and lose: by its function, by its power state, by its client, and by being opened anew.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Offset } from '../../../backend/devices/kit/capabilities.ts';
import { MAGIC, Register } from '../../../backend/devices/loopback/registers.ts';
import { createEventFd, drainEventFd } from '../../../protocol/unix/eventfd.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { IrqIndex } from '../../../protocol/vfio-user/commands.ts';
import { openFds } from '../protocol/unix/open-fds.ts';
import {
  AS_NATIVE,
  At,
  BUS_MASTER,
  bar,
  bindVector0,
  DeviceUnderTest,
  functionLevelReset,
  MEMORY_SPACE,
  magic,
  mapPage,
  read,
  read16,
  write16,
  writeBar,
} from './device-under-test.ts';

const CONFIG_BYTES = 4096;

let before: number;
let device: DeviceUnderTest;

beforeEach(() => {
  before = openFds();
  device = new DeviceUnderTest();
  device.pf.attach(AS_NATIVE);
});
afterEach(() => {
  device.close();
  expect(openFds()).toBe(before);
});

describe('a VF that is opened anew behind a slot', () => {
  let line: number;
  beforeEach(() => {
    line = createEventFd();
    device.attachSlot();
  });
  afterEach(() => closeFd(line));

  it('gets the eventfds and the memory that the client bound while there was none', () => {
    mapPage(device.vf, 0x1000n);
    bindVector0(device.vf, line);
    device.enable();
    expect(device.vfHardware?.mapped).toMatchObject([{ address: 0x1000n, size: 4096n }]);
    expect(device.vfHardware?.irqs).toMatchObject([{ index: IrqIndex.msix, count: 1 }]);
    write16(device.vf, At.command, BUS_MASTER);
    writeBar(device.vf, Register.doorbell, 0);
    expect(drainEventFd(line)).toBe(1n);
  });

  it('gets them again at each enable, and lets go of them by closing', () => {
    mapPage(device.vf, 0x1000n);
    for (let round = 0; round < 3; round++) {
      device.enable();
      const { vfHardware } = device;
      expect(vfHardware?.mapped).toHaveLength(1);
      device.takeDown();
      expect(vfHardware?.isClosed).toBe(true);
    }
    expect(device.vf.memory.windows.size).toBe(1);
  });

  it('is told only of memory that came or went since the host was handed the rest', () => {
    for (const address of [0x1000n, 0x2000n]) {
      mapPage(device.vf, address);
    }
    const told: bigint[] = [];
    device.vf.memory.handOver(
      (windows) => void told.push(...windows.map(({ address }) => address)),
      (rest) => rest(),
      () => {},
    );
    expect(told).toEqual([0x1000n, 0x2000n]);
    device.vf.unmapDma(
      0x2000n,
      4096n,
      () => {},
      () => {},
    );
    mapPage(device.vf, 0x3000n);
    device.enable();
    expect(device.vfHardware?.unmapped).toMatchObject([{ address: 0x2000n }]);
    expect(device.vfHardware?.mapped).toMatchObject([{ address: 0x3000n }]);
  });

  it('gets Command as the guest left it', () => {
    device.enable();
    write16(device.vf, At.command, MEMORY_SPACE | BUS_MASTER);
    device.takeDown();
    device.enable();
    expect(read16(device.vf, At.command)).toBe(MEMORY_SPACE | BUS_MASTER);
  });

  it('starts with Command as the glue has written it, if only since the host opened the VF', () => {
    device.enable();
    write16(device.vf, At.command, MEMORY_SPACE | BUS_MASTER);
    device.takeDown();
    device.setVfEnable();
    device.bringUp();
    write16(device.vf, At.command, MEMORY_SPACE);
    device.vf.activate();
    expect(read16(device.vf, At.command)).toBe(MEMORY_SPACE);
    expect(device.vfHardware!.readConfig(At.command, 2) & BUS_MASTER).toBe(0);
  });

  it('does not come up where the hardware refuses the eventfds', () => {
    bindVector0(device.vf, line);
    device.setVfEnable();
    device.onOpen = (hardware) => {
      hardware.refusesIrqs = true;
    };
    expect(() => device.bringUp()).toThrow('VFIO_DEVICE_SET_IRQS');
    device.vfHardware!.refusesIrqs = false;
  });
});

describe('a function level reset of a VF', () => {
  beforeEach(() => {
    device.attachSlot();
    device.enable();
    write16(device.vf, At.command, MEMORY_SPACE | BUS_MASTER);
    writeBar(device.vf, Register.scratch, 7);
  });

  it('resets it, and leaves the slot’s Memory Space Enable, which nobody would set again', () => {
    functionLevelReset(device.vf);
    expect(read16(device.vf, At.command)).toBe(MEMORY_SPACE);
    expect(bar(device.vf, Register.scratch)[0]).toBe(0);
    expect(device.vf.placementLost).toBe(true);
    expect(device.pf.sriov.vfEnable).toBe(true);
  });

  it('that takes its time reads as all-ones until it is over, Command too', () => {
    device.vfHardware!.isSlow = true;
    functionLevelReset(device.vf);
    expect(read(device.vf, 0, CONFIG_BYTES)).toEqual(new Uint8Array(CONFIG_BYTES).fill(0xff));
    expect(magic(device.vf)).toBe(0xffff_ffff);
    device.vfHardware!.finish();
    expect(read16(device.vf, At.command)).toBe(MEMORY_SPACE);
    expect(magic(device.vf)).toBe(MAGIC);
  });

  it('gives the hardware Command as the guest now has it, whatever the host restored', () => {
    device.vfHardware!.isSlow = true;
    functionLevelReset(device.vf);
    device.vfHardware!.finish();
    expect(device.vfHardware!.readConfig(At.command, 2) & BUS_MASTER).toBe(0);
  });

  it('that ends after the VF was taken down changes nothing of its successor', () => {
    const first = device.vfHardware!;
    first.isSlow = true;
    functionLevelReset(device.vf);
    device.takeDown();
    device.enable();
    writeBar(device.vf, Register.scratch, 3);
    expect(() => first.finish()).not.toThrow();
    expect(bar(device.vf, Register.scratch)[0]).toBe(3);
    expect(device.vf.state).toBe('up');
  });
});

describe('Power State', () => {
  const control = Offset.powerManagement + 4;
  beforeEach(() => {
    device.attachSlot();
    device.enable();
    write16(device.vf, control, 3);
  });

  it('in a slot reads as it was written over a function level reset: QEMU goes by its own copy', () => {
    functionLevelReset(device.vf);
    expect(read16(device.vf, control) & 3).toBe(3);
    expect(device.vfHardware!.readConfig(control, 2) & 3).toBe(0);
    write16(device.vf, control, 0);
    expect(read16(device.vf, control) & 3).toBe(0);
  });

  it.each([1, 2])(
    'stays what it was when D%i is written, which the function does not have',
    (state) => {
      write16(device.vf, control, state);
      expect(read16(device.vf, control) & 3).toBe(3);
      expect(device.vfHardware!.readConfig(control, 2) & 3).toBe(3);
    },
  );

  it('is D0 after the slot’s DEVICE_RESET', () => {
    device.vf.reset(() => {});
    expect(read16(device.vf, control) & 3).toBe(0);
  });

  it('of a native VF reads as it was written, until it is reset; the hardware, which its VMM has mapped, stays in D0', () => {
    device.vf.detach();
    device.vf.attach(AS_NATIVE);
    write16(device.vf, control, 3);
    expect(read16(device.vf, control) & 3).toBe(3);
    expect(device.vfHardware!.readConfig(control, 2) & 3).toBe(0);
    functionLevelReset(device.vf);
    expect(read16(device.vf, control) & 3).toBe(0);
  });
});

it('a slot that is reset while it is placed is not placed', () => {
  device.attachSlot();
  const placed = device.vf.beginPlacement();
  device.vf.reset(() => {});
  placed();
  expect(device.vf.placementLost).toBe(true);
});

describe('a DEVICE_RESET of a slot', () => {
  beforeEach(() => {
    device.attachSlot();
    device.enable();
    device.vf.beginPlacement()();
    write16(device.vf, At.command, MEMORY_SPACE | BUS_MASTER);
    device.vfHardware!.isSlow = true;
  });

  it('is answered before the host has done it: QEMU resets slots one by one with its big lock held', () => {
    let answered = false;
    device.vf.reset(() => {
      answered = true;
    });
    expect(answered).toBe(true);
    expect(device.vfHardware?.resets).toBe(1);
  });

  it('loses the slot’s placement and Command', () => {
    device.vf.reset(() => {});
    expect(device.vf.placementLost).toBe(true);
    device.vfHardware!.finish();
    expect(read16(device.vf, At.command)).toBe(0);
  });

  it('keeps a Command that is written before the host has done it', () => {
    device.vf.reset(() => {});
    write16(device.vf, At.command, MEMORY_SPACE | BUS_MASTER);
    device.vfHardware!.finish();
    expect(read16(device.vf, At.command)).toBe(MEMORY_SPACE | BUS_MASTER);
  });
});
