// A VF as its client sees it: dormant, coming up, and up.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Offset } from '../../../backend/devices/kit/capabilities.ts';
import { DmaStatus, MAGIC, Register } from '../../../backend/devices/loopback/registers.ts';
import { walkExtendedCapabilities } from '../../../backend/pci/capability-chain.ts';
import { ExtendedCapabilityId } from '../../../backend/pci/spec/capability-ids.ts';
import { RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { openFds } from '../protocol/unix/open-fds.ts';
import {
  AS_NATIVE,
  AS_QEMU,
  At,
  BUS_MASTER,
  bar,
  DeviceUnderTest,
  MEMORY_SPACE,
  magic,
  mapPage,
  read,
  read16,
  VF_ENABLE,
  write,
  write16,
  writeBar,
} from './device-under-test.ts';

const CONFIG_BYTES = 4096;
const ABSENT = [0xff, 0xff, 0xff, 0xff];
const REAL_IDS = [0x0f, 0x1d, 0x54, 0x00];

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

function ids(): number[] {
  return [...read(device.vf, 0, 4)];
}

describe('a dormant slot', () => {
  it('shows real IDs while QEMU realises it, and no extended space', () => {
    device.vf.attach(AS_QEMU);
    const image = read(device.vf, 0, CONFIG_BYTES);
    expect([...image.subarray(0, 4)]).toEqual(REAL_IDS);
    expect(image.subarray(0x100)).toEqual(new Uint8Array(CONFIG_BYTES - 0x100));
    expect(read16(device.vf, At.bar0)).toBe(0x000c);
  });

  it('cannot be found by a guest’s scan once the guest runs', () => {
    device.attachSlot();
    expect(ids()).toEqual(ABSENT);
  });

  it('goes on showing what QEMU reads again at each reset', () => {
    device.attachSlot();
    const realised = device.description.vf.config;
    expect(read(device.vf, 0x08, 0x38)).toEqual(realised.slice(0x08, 0x40));
  });

  it('has no memory: reads give all-ones, writes go nowhere', () => {
    device.attachSlot();
    writeBar(device.vf, Register.scratch, 1);
    expect(magic(device.vf)).toBe(0xffff_ffff);
  });

  it('stays dormant when the guest enables fewer VFs', () => {
    device.attachSlot();
    device.setVfEnable(0);
    expect(device.vf.state).toBe('absent');
    expect(read(device.vf, At.headerType, 1)[0]).toBe(0);
  });

  it('can be reset without there being a VF', () => {
    device.attachSlot();
    let answered = false;
    device.vf.reset(() => {
      answered = true;
    });
    expect(answered).toBe(true);
  });
});

describe('a slot that a guest looks at although it was to be paused', () => {
  beforeEach(() => {
    device.attachSlot();
    device.early.isGuestToBePaused = true;
    device.setVfEnable();
  });

  it('looks as a VF does, but has no memory', () => {
    expect(device.vf.state).toBe('coming-up');
    expect(ids()).toEqual(ABSENT);
    expect(read(device.vf, At.headerType, 1)[0]).toBe(0);
    expect(magic(device.vf)).toBe(0xffff_ffff);
  });

  it('draws each look out, and nothing else', () => {
    expect(device.vf.holdRead(RegionIndex.config)).toBe(device.early.hold);
    expect(device.vf.holdRead(RegionIndex.bar0)).toBeUndefined();
  });

  it('reads as all-ones, at once, from when it is certain that the VF does not come', () => {
    device.early.isGuestToBePaused = false;
    expect(device.vf.holdRead(RegionIndex.config)).toBeUndefined();
    expect(read(device.vf, At.headerType, 1)[0]).toBe(0xff);
  });
});

describe('a native VF that is coming up', () => {
  it('reads as all-ones: its VMM is told when it is there', () => {
    device.vf.attach(AS_NATIVE);
    device.setVfEnable();
    expect(read(device.vf, At.headerType, 1)[0]).toBe(0xff);
  });
});

describe('a slot whose VF is still coming up, or did not come', () => {
  beforeEach(() => {
    device.attachSlot();
    device.setVfEnable();
  });

  it('reads as all-ones, which is how Linux notices', () => {
    expect(device.vf.state).toBe('coming-up');
    expect(ids()).toEqual(ABSENT);
    expect(read(device.vf, At.headerType, 1)[0]).toBe(0xff);
    expect(read(device.vf, Offset.pciExpress, 8)).toEqual(new Uint8Array(8).fill(0xff));
    expect(read(device.vf, 0x100, 0x100)).toEqual(new Uint8Array(0x100).fill(0xff));
  });

  it('keeps Command, BARs and the interrupt pin for QEMU, which takes all-ones there for a broken device', () => {
    expect(read16(device.vf, At.command)).toBe(0);
    expect(read16(device.vf, At.bar0)).toBe(0x000c);
    expect(read16(device.vf, 0x3c)).toBe(0);
  });

  it('does not answer before it is shown, open or not', () => {
    device.bringUp();
    expect(device.vf.state).toBe('coming-up');
    expect(read(device.vf, At.headerType, 1)[0]).toBe(0xff);
    expect(magic(device.vf)).toBe(0xffff_ffff);
    device.vf.activate();
    expect(read(device.vf, At.headerType, 1)[0]).toBe(0);
  });

  it('keeps the Command that the glue writes while it places the slot', () => {
    write16(device.vf, At.command, MEMORY_SPACE);
    device.bringUp();
    device.vf.activate();
    expect(read16(device.vf, At.command)).toBe(MEMORY_SPACE);
  });

  it('keeps Command as written byte by byte as well', () => {
    write(device.vf, At.command + 1, [0x01]);
    write(device.vf, At.command, [MEMORY_SPACE]);
    expect(read16(device.vf, At.command)).toBe(0x0100 | MEMORY_SPACE);
  });
});

describe('a VF that is up', () => {
  beforeEach(() => {
    device.attachSlot();
    device.enable();
  });

  it('has no IDs of its own', () => {
    expect(ids()).toEqual(ABSENT);
    write(device.vf, 0, REAL_IDS);
    expect(ids()).toEqual(ABSENT);
  });

  it('shows ARI and AER, and never SR-IOV', () => {
    const image = read(device.vf, 0, CONFIG_BYTES);
    expect(walkExtendedCapabilities(image).map(({ id }) => id)).toEqual([
      ExtendedCapabilityId.alternativeRoutingId,
      ExtendedCapabilityId.advancedErrorReporting,
    ]);
  });

  it('has read-only zeros where BARs, ROM and interrupt pin would be', () => {
    write(device.vf, At.bar0, new Array(24).fill(0xff));
    expect(read(device.vf, At.bar0, 24)).toEqual(new Uint8Array(24));
    expect(read(device.vf, 0x30, 4)).toEqual(new Uint8Array(4));
    expect(read(device.vf, 0x3c, 4)).toEqual(new Uint8Array(4));
  });

  it('answers in its BAR, with what is its own', () => {
    expect(magic(device.vf)).toBe(MAGIC);
    expect(bar(device.vf, Register.functionNumber)[0]).toBe(1);
    expect(bar(device.vf, Register.generation)[0]).toBe(1);
  });

  it('answers in its BAR only while VF Memory Space Enable is set', () => {
    write16(device.pf, At.sriovControl, VF_ENABLE);
    expect(magic(device.vf)).toBe(0xffff_ffff);
    writeBar(device.vf, Register.scratch, 5);
    write16(device.pf, At.sriovControl, VF_ENABLE | 0x8);
    expect(magic(device.vf)).toBe(MAGIC);
    expect(bar(device.vf, Register.scratch)[0]).toBe(0);
  });

  it('knows which enable brought it up', () => {
    device.takeDown();
    device.enable();
    expect(bar(device.vf, Register.generation)[0]).toBe(2);
    expect(device.vf.generation).toBe(2);
  });

  it('is dormant again when VFs are disabled', () => {
    write16(device.pf, At.sriovControl, 0);
    expect(device.vf.state).toBe('absent');
    expect(magic(device.vf)).toBe(0xffff_ffff);
    expect(read(device.vf, At.headerType, 1)[0]).toBe(0);
  });

  it('takes all 4096 bytes in one write, and one of no bytes', () => {
    write(device.vf, 0, new Array(CONFIG_BYTES).fill(0xff));
    expect(ids()).toEqual(ABSENT);
    expect(device.vfHardware?.resets).toBe(1);
    write(device.vf, CONFIG_BYTES, []);
    expect(read(device.vf, CONFIG_BYTES, 0)).toHaveLength(0);
  });
});

describe('Memory Space Enable', () => {
  it('in a slot reads as it was written, because QEMU maps the BAR by it', () => {
    device.attachSlot();
    device.enable();
    write16(device.vf, At.command, MEMORY_SPACE | BUS_MASTER);
    expect(read16(device.vf, At.command)).toBe(MEMORY_SPACE | BUS_MASTER);
    write16(device.vf, At.command, BUS_MASTER);
    expect(read16(device.vf, At.command)).toBe(BUS_MASTER);
  });

  it('of a native VF reads 0, as the standard says', () => {
    device.enable();
    device.vf.attach(AS_NATIVE);
    write16(device.vf, At.command, MEMORY_SPACE | BUS_MASTER);
    expect(read16(device.vf, At.command)).toBe(BUS_MASTER);
  });
});

describe('what a VMM may map', () => {
  it('is nothing of a slot: a doorbell there would never be heard of', () => {
    device.attachSlot();
    device.enable();
    expect(device.vf.region(RegionIndex.bar0).mappable).toEqual([]);
    expect(device.vf.regionFile(RegionIndex.bar0)).toBeUndefined();
  });

  it('is the memory of a native VF, while it is up', () => {
    device.vf.attach(AS_NATIVE);
    expect(device.vf.regionFile(RegionIndex.bar0)).toBeUndefined();
    device.enable();
    expect(device.vf.region(RegionIndex.bar0).mappable).toHaveLength(1);
    expect(device.vf.regionFile(RegionIndex.bar0)).toMatchObject({ offset: 0n });
  });
});

describe('the DMA engine of a VF', () => {
  it('reaches the memory that its own client mapped, with Bus Master Enable', () => {
    device.attachSlot();
    device.enable();
    mapPage(device.vf, 0x4000n);
    mapPage(device.pf, 0x8000n);
    write16(device.vf, At.command, BUS_MASTER);
    const copy = (source: number): number => {
      writeBar(device.vf, Register.dmaSourceLow, source);
      writeBar(device.vf, Register.dmaDestinationLow, 0x4100);
      writeBar(device.vf, Register.dmaLength, 64);
      writeBar(device.vf, Register.dmaStart, 1);
      return bar(device.vf, Register.dmaStatus)[0]!;
    };
    expect(copy(0x4000)).toBe(DmaStatus.done);
    expect(copy(0x8000)).toBe(DmaStatus.notMapped);
  });
});
