import { beforeEach, describe, expect, it } from 'vitest';
import {
  type HardwareConfig,
  hardwareLayout,
  type Range,
  rangesOf,
} from '../../../backend/device/hardware-config.ts';
import { ConfigSpace } from '../../../backend/pci/config-space.ts';
import {
  type AllowedCapabilities,
  CapabilityId,
  ExtendedCapabilityId,
  PF_CAPABILITIES,
} from '../../../backend/pci/spec/capability-ids.ts';

const CONFIG_BYTES = 4096;
/** Where the device under test has its capabilities. */
const At = {
  powerManagement: 0x40,
  /** Enhanced Allocation: not on any list. */
  unknown: 0x50,
  pciExpress: 0x60,
  /** Registers that belong to no capability, as some drivers use them. */
  between: 0xe0,
  ats: 0x100,
  aer: 0x120,
  sriov: 0x180,
  vendor: 0x1c0,
} as const;
const DEVICE_CONTROL = At.pciExpress + 8;
const ENHANCED_ALLOCATION = 0x14;
const FLR = 0x8000;

/** A device whose every byte that no register claims reads 0xa5: what shows through is seen. */
function deviceImage(): Uint8Array {
  const image = new Uint8Array(CONFIG_BYTES).fill(0xa5);
  const view = new DataView(image.buffer);
  view.setUint16(0x00, 0x8086, true);
  view.setUint16(0x06, 0x0010, true);
  image[0x34] = At.powerManagement;
  const standard = (offset: number, id: number, next: number) => image.set([id, next], offset);
  standard(At.powerManagement, CapabilityId.powerManagement, At.unknown);
  standard(At.unknown, ENHANCED_ALLOCATION, At.pciExpress);
  standard(At.pciExpress, CapabilityId.pciExpress, 0);
  const extended = (offset: number, id: number, next: number) =>
    view.setUint32(offset, (id | (1 << 16) | (next << 20)) >>> 0, true);
  extended(At.ats, ExtendedCapabilityId.addressTranslationServices, At.aer);
  extended(At.aer, ExtendedCapabilityId.advancedErrorReporting, At.sriov);
  extended(At.sriov, ExtendedCapabilityId.sriov, At.vendor);
  extended(At.vendor, ExtendedCapabilityId.vendorSpecific, 0);
  // Vendor-specific header: 0x20 bytes long.
  view.setUint32(At.vendor + 4, 0x0200_0001, true);
  return image;
}

let image: Uint8Array;
let written: { offset: number; length: number; value: number }[];
let resets: number;
let hardware: HardwareConfig;

beforeEach(() => {
  image = deviceImage();
  written = [];
  resets = 0;
  hardware = {
    read: (offset, length) => {
      let value = 0;
      for (let lane = 0; lane < length; lane++) {
        value |= image[offset + lane]! << (8 * lane);
      }
      return value >>> 0;
    },
    write: (offset, length, value) => written.push({ offset, length, value }),
  };
});

function layoutOf(holes: readonly Range[] = [], allowed: AllowedCapabilities = PF_CAPABILITIES) {
  return hardwareLayout(image, allowed, holes, hardware, () => {
    resets++;
  });
}

function spaceOf(holes: readonly Range[] = []): ConfigSpace {
  return new ConfigSpace(CONFIG_BYTES, layoutOf(holes).owners);
}

function bytesOf(space: ConfigSpace, offset: number, length: number): Uint8Array {
  const into = new Uint8Array(length);
  space.read(offset, length, into);
  return into;
}

function u32(space: ConfigSpace, offset: number): number {
  return new DataView(bytesOf(space, offset, 4).buffer).getUint32(0, true);
}

describe('the layout of a function’s hardware', () => {
  it('gives no byte two owners, with or without holes', () => {
    const owned = new Uint8Array(CONFIG_BYTES);
    for (const { offset, length } of layoutOf([{ start: At.sriov, end: At.sriov + 0x40 }]).owners) {
      for (let at = offset; at < offset + length; at++) {
        owned[at]!++;
      }
    }
    expect(Math.max(...owned)).toBe(1);
  });

  it('owns all of the first 256 bytes, but for what is unlinked', () => {
    const owned = new Uint8Array(0x100);
    for (const { offset, length } of layoutOf().owners) {
      for (let at = offset; at < Math.min(offset + length, 0x100); at++) {
        owned[at] = 1;
      }
    }
    const missing = [...owned.keys()].filter((at) => owned[at] === 0);
    expect(missing).toEqual([0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57]);
  });

  it('leaves holes to others, wherever they lie', () => {
    const holes = [
      { start: 0x00, end: 0x04 },
      { start: 0x3c, end: 0x44 },
      { start: At.sriov, end: At.sriov + 0x40 },
    ];
    const { owners } = layoutOf(holes);
    for (const { start, end } of holes) {
      for (const { offset, length } of owners) {
        expect(offset >= end || offset + length <= start).toBe(true);
      }
    }
  });

  it('says where Device Control is and which extended capabilities stay, in order', () => {
    const { deviceControl, extended } = layoutOf();
    expect(deviceControl).toBe(DEVICE_CONTROL);
    expect(extended.map(({ offset }) => offset)).toEqual([At.aer, At.sriov, At.vendor]);
  });

  it('finds the places of capabilities that somebody else serves', () => {
    expect(rangesOf(image, new Map([[ExtendedCapabilityId.sriov, 0x40]]))).toEqual([
      { start: At.sriov, end: At.sriov + 0x40 },
    ]);
  });
});

describe('what a guest reads', () => {
  it('is the hardware’s header, and the registers between capabilities', () => {
    const space = spaceOf();
    expect(bytesOf(space, 0, 2)).toEqual(Uint8Array.of(0x86, 0x80));
    expect(bytesOf(space, At.between, 4)).toEqual(Uint8Array.of(0xa5, 0xa5, 0xa5, 0xa5));
  });

  it('is 0 where a capability was unlinked, and the chain passes it by', () => {
    const space = spaceOf();
    expect(bytesOf(space, At.unknown, 8)).toEqual(new Uint8Array(8));
    expect(bytesOf(space, At.powerManagement + 1, 1)).toEqual(Uint8Array.of(At.pciExpress));
  });

  it('is 0 in extended space wherever no listed capability is', () => {
    const space = spaceOf();
    expect(bytesOf(space, At.ats + 4, At.aer - At.ats - 4)).toEqual(
      new Uint8Array(At.aer - At.ats - 4),
    );
    expect(bytesOf(space, At.vendor + 0x20, 0x200)).toEqual(new Uint8Array(0x200));
  });

  it('starts the extended chain with a null capability where the first one was unlinked', () => {
    expect(u32(spaceOf(), At.ats)).toBe(At.aer * 2 ** 20);
  });

  it('keeps the hardware’s own head where the first capability stays', () => {
    new DataView(image.buffer).setUint32(
      At.ats,
      (ExtendedCapabilityId.advancedErrorReporting | (1 << 16) | (At.sriov << 20)) >>> 0,
      true,
    );
    expect(u32(spaceOf(), 0x100) & 0xffff).toBe(ExtendedCapabilityId.advancedErrorReporting);
  });

  it('ends a capability that claims more than its room where the next one starts', () => {
    new DataView(image.buffer).setUint32(At.aer, 0x1801_000b, true);
    new DataView(image.buffer).setUint32(At.aer + 4, 0xfff0_0001, true);
    const space = spaceOf();
    expect(bytesOf(space, At.sriov - 4, 4)).toEqual(Uint8Array.of(0xa5, 0xa5, 0xa5, 0xa5));
    expect(bytesOf(space, At.sriov + 0x40 - 4, 4)).toEqual(Uint8Array.of(0xa5, 0xa5, 0xa5, 0xa5));
    expect(u32(space, At.vendor) & 0xffff).toBe(ExtendedCapabilityId.vendorSpecific);
  });

  it('is not blanked where an unlinked capability is shorter than most', () => {
    image.set([ENHANCED_ALLOCATION, 0x54], At.unknown);
    image.set([CapabilityId.vendorSpecific, At.pciExpress, 12], 0x54);
    expect(bytesOf(spaceOf(), At.unknown, 8)).toEqual(
      Uint8Array.of(0, 0, 0, 0, CapabilityId.vendorSpecific, At.pciExpress, 12, 0xa5),
    );
  });

  it('ends the last capability with config space', () => {
    const view = new DataView(image.buffer);
    view.setUint32(
      At.aer,
      (ExtendedCapabilityId.advancedErrorReporting | (0xff8 << 20)) >>> 0,
      true,
    );
    view.setUint32(0xff8, ExtendedCapabilityId.advancedErrorReporting, true);
    expect(bytesOf(spaceOf(), 0xffc, 4)).toEqual(Uint8Array.of(0xa5, 0xa5, 0xa5, 0xa5));
  });

  it('has no extended space where the device has none', () => {
    image = image.slice(0, 0x100);
    const space = new ConfigSpace(0x100, layoutOf().owners);
    expect(bytesOf(space, 0, 2)).toEqual(Uint8Array.of(0x86, 0x80));
  });
});

describe('a function level reset', () => {
  it.each<[string, number, readonly number[]]>([
    ['one byte', DEVICE_CONTROL + 1, [FLR >> 8]],
    ['two bytes', DEVICE_CONTROL, [0x10, FLR >> 8]],
    ['four bytes', DEVICE_CONTROL, [0x10, FLR >> 8, 0x0f, 0]],
    ['all that lies around it', DEVICE_CONTROL - 8, [0, 0, 0, 0, 0, 0, 0, 0, 0, FLR >> 8]],
  ])('written as %s never reaches the hardware and is told once', (_, offset, bytes) => {
    spaceOf().write(offset, Uint8Array.from(bytes));
    expect(resets).toBe(1);
    for (const { offset: at, length, value } of written) {
      const high = DEVICE_CONTROL + 1 - at;
      const isHigh = high >= 0 && high < length;
      expect(isHigh ? (value >>> (8 * high)) & 0x80 : 0).toBe(0);
    }
  });

  it('leaves the other bits of the write to the hardware', () => {
    spaceOf().write(DEVICE_CONTROL, Uint8Array.of(0x0f, 0x80 | 0x28));
    expect(written).toEqual([{ offset: DEVICE_CONTROL, length: 2, value: 0x280f }]);
  });

  it.each<[string, number, readonly number[]]>([
    ['the low byte, whose top bit is another one', DEVICE_CONTROL, [0x80]],
    ['Device Status', DEVICE_CONTROL + 2, [0x00, 0x80]],
    ['Device Control without the bit', DEVICE_CONTROL, [0xff, 0x7f]],
  ])('is not started by a write of %s', (_, offset, bytes) => {
    spaceOf().write(offset, Uint8Array.from(bytes));
    expect(resets).toBe(0);
    expect(written).toHaveLength(1);
  });
});

describe('the number of MSI-X vectors', () => {
  beforeEach(() => {
    // The capability lies where nothing of another one is, and says 3 vectors.
    image.set([CapabilityId.msix, 0, 0x02, 0x00], At.between);
    image[At.pciExpress + 1] = At.between;
  });

  it('stays what it was when the client was told, while the hardware changes it', () => {
    const space = spaceOf();
    image[At.between + 2] = 7;
    expect(bytesOf(space, At.between + 2, 2)).toEqual(Uint8Array.of(0x02, 0x00));
  });

  it('leaves the enable and mask bits to hardware and guest', () => {
    const space = spaceOf();
    space.write(At.between + 2, Uint8Array.of(0x02, 0xc0));
    expect(written).toEqual([{ offset: At.between + 2, length: 2, value: 0xc002 }]);
    image[At.between + 3] = 0x80;
    expect(bytesOf(space, At.between + 2, 2)).toEqual(Uint8Array.of(0x02, 0x80));
  });
});

describe('what a guest writes', () => {
  it('never reaches a capability that was unlinked, nor a chain’s pointer', () => {
    const space = spaceOf();
    space.write(At.unknown, new Uint8Array(8).fill(0xff));
    space.write(At.ats, new Uint8Array(At.aer - At.ats).fill(0xff));
    expect(written).toEqual([]);
    space.write(At.powerManagement + 1, Uint8Array.of(0));
    expect(written).toEqual([]);
  });

  it('is cut into naturally aligned pieces', () => {
    spaceOf().write(At.between + 1, new Uint8Array(9).fill(1));
    expect(written.map(({ offset, length }) => [offset, length])).toEqual([
      [At.between + 1, 1],
      [At.between + 2, 2],
      [At.between + 4, 4],
      [At.between + 8, 2],
    ]);
  });
});
