import { describe, expect, it } from 'vitest';
import { ConfigSpace } from '../../../backend/pci/config-space.ts';
import { SRIOV } from '../../../backend/pci/spec/sriov.ts';
import {
  SriovCapability,
  type SriovEvent,
  type SriovShape,
} from '../../../backend/sriov/capability.ts';

type Name = keyof typeof SRIOV;

const SHAPE: SriovShape = {
  totalVfs: 300,
  vfDeviceId: 0x10ca,
  firstVfOffset: 1,
  vfStride: 1,
  vfBars: [
    { index: 0, size: 16 * 1024, kind: 'memory64', prefetchable: true },
    { index: 2, size: 4096, kind: 'memory32', prefetchable: false },
  ],
  functionDependencyLink: 0x28,
};

const VF_ENABLE = 0x01;
const VF_MEMORY_SPACE_ENABLE = 0x08;
const ARI_CAPABLE_HIERARCHY = 0x10;

class Guest {
  readonly capability: SriovCapability;
  readonly events: SriovEvent[] = [];

  constructor(shape: Partial<SriovShape> = {}) {
    this.capability = new SriovCapability({ ...SHAPE, ...shape });
  }

  read(name: Name): number {
    return this.capability.read(SRIOV[name].offset, SRIOV[name].bytes);
  }

  write(name: Name, value: number): SriovEvent[] {
    const events = this.capability.write(SRIOV[name].offset, SRIOV[name].bytes, value);
    this.events.push(...events);
    return events;
  }

  writeBytes(name: Name, value: number): SriovEvent[] {
    const { offset, bytes } = SRIOV[name];
    return Array.from({ length: bytes }, (_, lane) =>
      this.capability.write(offset + lane, 1, (value >>> (8 * lane)) & 0xff),
    ).flat();
  }
}

describe('a fresh capability', () => {
  it('reads as the standard’s reset values', () => {
    const guest = new Guest();
    const values = Object.fromEntries(
      (Object.keys(SRIOV) as Name[]).map((name) => [name, `0x${guest.read(name).toString(16)}`]),
    );
    expect(values).toMatchInlineSnapshot(`
      {
        "capabilities": "0x0",
        "control": "0x0",
        "firstVfOffset": "0x1",
        "functionDependencyLink": "0x28",
        "header": "0x10010",
        "initialVfs": "0x12c",
        "numVfs": "0x0",
        "status": "0x0",
        "supportedPageSizes": "0x553",
        "systemPageSize": "0x1",
        "totalVfs": "0x12c",
        "vfBar0": "0xc",
        "vfBar1": "0x0",
        "vfBar2": "0x0",
        "vfBar3": "0x0",
        "vfBar4": "0x0",
        "vfBar5": "0x0",
        "vfDeviceId": "0x10ca",
        "vfMigrationStateArrayOffset": "0x0",
        "vfStride": "0x1",
      }
    `);
  });

  it('lets a guest change only Control, NumVFs, System Page Size and VF BARs', () => {
    const guest = new Guest({ totalVfs: 0xffff });
    const changed = (Object.keys(SRIOV) as Name[]).filter((name) => {
      const before = guest.read(name);
      guest.write(name, ~before >>> 0);
      guest.write('control', 0);
      return guest.read(name) !== before;
    });
    // Control itself was put back to 0 each time.
    expect(changed).toEqual(['numVfs', 'systemPageSize', 'vfBar0', 'vfBar1', 'vfBar2']);
  });

  it('of Control, only VF Enable, VF MSE and ARI Capable Hierarchy can be set', () => {
    const guest = new Guest();
    guest.write('control', 0xffff);
    expect(guest.read('control')).toBe(0x19);
  });

  it('ARI Capable Hierarchy is read-only where the PF is not the lowest-numbered', () => {
    const guest = new Guest({ ariCapableHierarchy: false });
    guest.write('control', ARI_CAPABLE_HIERARCHY);
    expect(guest.read('control')).toBe(0);
    expect(guest.capability.ariCapableHierarchy).toBe(false);
  });

  it('links the next capability where it is told to', () => {
    const guest = new Guest();
    guest.capability.setNextPointer(0x1a0);
    expect(guest.read('header')).toBe(0x1a01_0010);
  });

  it('answers at its place in config space and passes events on', () => {
    const guest = new Guest();
    const heard: SriovEvent[][] = [];
    const space = new ConfigSpace(4096, [
      guest.capability.owner(0x160, (events) => heard.push(events)),
    ]);
    space.write(0x170, Uint8Array.of(3, 0));
    space.write(0x168, Uint8Array.of(VF_ENABLE, 0, 0, 0));
    const into = new Uint8Array(4);
    space.read(0x160, 4, into);
    expect([...into]).toEqual([0x10, 0, 0x01, 0]);
    expect(heard).toEqual([[{ type: 'vfEnableSet', numVfs: 3 }]]);
  });
});

describe('VF Enable', () => {
  it('tells how many VFs there are, and that they are gone', () => {
    const guest = new Guest();
    guest.write('numVfs', 7);
    guest.write('control', VF_ENABLE | VF_MEMORY_SPACE_ENABLE);
    guest.write('control', 0);
    expect(guest.events).toEqual([
      { type: 'vfMemorySpaceEnable', value: true },
      { type: 'vfEnableSet', numVfs: 7 },
      { type: 'vfMemorySpaceEnable', value: false },
      { type: 'vfEnableCleared' },
    ]);
  });

  it('written again with the same value means nothing', () => {
    const guest = new Guest();
    guest.write('numVfs', 1);
    guest.write('control', VF_ENABLE);
    expect(guest.write('control', VF_ENABLE)).toEqual([]);
  });

  it('a 4-byte write over Control and Status and a 1-byte write mean the same', () => {
    const wide = new Guest();
    wide.write('numVfs', 2);
    const narrow = new Guest();
    narrow.write('numVfs', 2);
    const { offset } = SRIOV.control;
    expect(wide.capability.write(offset, 4, VF_ENABLE)).toEqual(
      narrow.capability.write(offset, 1, VF_ENABLE),
    );
    expect(wide.capability.vfEnable).toBe(true);
  });

  it('with NumVFs 0 reads back as set, and no VF exists', () => {
    const guest = new Guest();
    expect(guest.write('control', VF_ENABLE)).toEqual([{ type: 'vfEnableSet', numVfs: 0 }]);
    expect(guest.read('control')).toBe(VF_ENABLE);
  });

  it('makes NumVFs and System Page Size read-only until it is cleared', () => {
    const guest = new Guest();
    guest.write('numVfs', 4);
    guest.write('control', VF_ENABLE);
    guest.write('numVfs', 9);
    guest.write('systemPageSize', 0x10);
    expect([guest.read('numVfs'), guest.read('systemPageSize')]).toEqual([4, 1]);
    guest.write('control', 0);
    guest.write('numVfs', 9);
    guest.write('systemPageSize', 0x10);
    expect([guest.read('numVfs'), guest.read('systemPageSize')]).toEqual([9, 0x10]);
  });
});

describe('NumVFs', () => {
  it('takes all of TotalVFs, above 255 too', () => {
    const guest = new Guest();
    guest.write('numVfs', 300);
    expect(guest.write('control', VF_ENABLE)).toEqual([{ type: 'vfEnableSet', numVfs: 300 }]);
  });

  it.each([301, 0xffff])('of %i, above TotalVFs, makes VF Enable refuse to be set', (value) => {
    const guest = new Guest();
    guest.write('numVfs', value);
    expect(guest.write('control', VF_ENABLE)).toEqual([{ type: 'numVfsRefused', value }]);
    expect(guest.capability.vfEnable).toBe(false);
    expect(guest.read('control')).toBe(0);
  });

  it('can be put right after it was refused', () => {
    const guest = new Guest();
    guest.write('numVfs', 301);
    guest.write('control', VF_ENABLE);
    guest.write('numVfs', 300);
    expect(guest.write('control', VF_ENABLE)).toEqual([{ type: 'vfEnableSet', numVfs: 300 }]);
  });

  it('written byte by byte adds up, even over a value above TotalVFs in between', () => {
    const guest = new Guest();
    guest.write('numVfs', 300);
    guest.writeBytes('numVfs', 200);
    expect(guest.read('numVfs')).toBe(200);
  });
});

describe('VF BARs', () => {
  function sizing(guest: Guest, name: Name): number {
    guest.write(name, 0xffff_ffff);
    return guest.read(name);
  }

  it('show the size of one VF’s BAR, and nothing where there is none', () => {
    const guest = new Guest();
    const names: Name[] = ['vfBar0', 'vfBar1', 'vfBar2', 'vfBar3'];
    expect(names.map((name) => sizing(guest, name))).toEqual([
      0xffff_c00c, 0xffff_ffff, 0xffff_f000, 0,
    ]);
  });

  it('grow to the System Page Size', () => {
    const guest = new Guest();
    expect(guest.write('systemPageSize', 0x10)).toEqual([
      { type: 'systemPageSizeSet', bytes: 64 * 1024 },
    ]);
    expect(sizing(guest, 'vfBar0')).toBe(0xffff_000c);
    expect(sizing(guest, 'vfBar2')).toBe(0xffff_0000);
    expect(guest.capability.vfBarSize(0)).toBe(64 * 1024);
  });

  it('lose the address bits that a larger page takes', () => {
    const guest = new Guest();
    guest.write('vfBar2', 0xfe00_5000);
    guest.write('systemPageSize', 0x10);
    expect(guest.read('vfBar2')).toBe(0xfe00_0000);
  });

  it('a page size written byte by byte is the one that counts', () => {
    const guest = new Guest();
    guest.writeBytes('systemPageSize', 0x100);
    expect(guest.capability.systemPageSize).toBe(1024 * 1024);
    guest.writeBytes('systemPageSize', 0x1);
    expect(guest.capability.systemPageSize).toBe(4096);
  });

  it('place VF i at base + i × size, above 4 GiB too', () => {
    const guest = new Guest();
    guest.write('vfBar0', 0x0000_000c);
    guest.write('vfBar1', 0x38);
    guest.write('vfBar2', 0xfe00_0000);
    expect(guest.capability.vfBarAddress(0, 2)).toBe(0x38_0000_8000n);
    expect(guest.capability.vfBarAddress(2, 299)).toBe(0xfe00_0000n + 299n * 4096n);
  });

  it('tell that they moved only when they did', () => {
    const guest = new Guest();
    expect(guest.write('vfBar2', 0xfe00_0000)).toEqual([{ type: 'vfBarsMoved' }]);
    expect(guest.write('vfBar2', 0xfe00_0000)).toEqual([]);
    expect(guest.write('vfBar5', 0xfe00_0000)).toEqual([]);
  });

  it('of a number that VFs do not have are our mistake', () => {
    const { capability } = new Guest();
    expect(() => capability.vfBarSize(1)).toThrow('VFs have no BAR 1');
    expect(() => capability.vfBarAddress(4, 0)).toThrow('VFs have no BAR 4');
  });
});

describe('reset', () => {
  it('empties Control, NumVFs and VF BARs, goes back to 4 KiB pages and keeps the chain', () => {
    const guest = new Guest();
    guest.capability.setNextPointer(0x200);
    const fresh = (Object.keys(SRIOV) as Name[]).map((name) => guest.read(name));
    guest.write('systemPageSize', 0x40);
    guest.write('vfBar0', 0xfe00_0000);
    guest.write('numVfs', 5);
    guest.write('control', 0x19);
    guest.capability.reset();
    expect((Object.keys(SRIOV) as Name[]).map((name) => guest.read(name))).toEqual(fresh);
  });

  it('lets NumVFs, System Page Size and small VF BARs be written again', () => {
    const guest = new Guest();
    guest.write('systemPageSize', 0x400);
    guest.write('control', VF_ENABLE);
    guest.capability.reset();
    guest.write('numVfs', 6);
    guest.write('vfBar2', 0xfe00_1000);
    guest.write('systemPageSize', 0x2);
    expect(guest.read('numVfs')).toBe(6);
    expect(guest.read('systemPageSize')).toBe(2);
    expect(guest.capability.vfBarAddress(2, 0)).toBe(0xfe00_0000n);
  });
});

describe('a shape that breaks the standard', () => {
  it.each<[string, Partial<SriovShape>, RegExp]>([
    ['VF 0 on its PF', { firstVfOffset: 0 }, /First VF Offset is 0/],
    ['all VFs in one place', { vfStride: 0 }, /VF Stride is 0/],
    [
      'an I/O BAR',
      { vfBars: [{ index: 1, size: 32, kind: 'io', prefetchable: false }] },
      /VF BAR 1: VFs have memory BARs only/,
    ],
    [
      'a size that is no power of two',
      { vfBars: [{ index: 0, size: 12288, kind: 'memory32', prefetchable: false }] },
      /BAR 0 .* 12288 bytes is not a power of two/,
    ],
    ['more VFs than 16 bits hold', { totalVfs: 65536 }, /TotalVFs 65536 does not fit/],
  ])('is refused: %s', (_, shape, message) => {
    expect(() => new SriovCapability({ ...SHAPE, ...shape })).toThrow(message);
  });
});
