// Every layout against bytes written by hand from the standard's tables.
import { describe, expect, it } from 'vitest';
import { WireError } from '../../../protocol/errno.ts';
import {
  Command,
  commandName,
  IrqIndex,
  RegionIndex,
} from '../../../protocol/vfio-user/commands.ts';
import {
  DeviceFeature,
  DeviceInfo,
  DirtyBitmap,
  DmaAccess,
  DmaMap,
  DmaUnmap,
  FeatureFlag,
  Header,
  IrqInfo,
  IrqSet,
  RegionAccess,
  RegionInfo,
  RegionIoFd,
  RegionIoFds,
  readRegionAccess,
  SparseMmap,
  UnmapFlag,
  VersionPrefix,
  WriteMultiCount,
  WriteMultiEntry,
  writeRegionAccess,
} from '../../../protocol/vfio-user/messages.ts';

/** Bytes from hex text; blanks separate fields. */
function hex(text: string): number[] {
  return [...Buffer.from(text.replaceAll(' ', ''), 'hex')];
}

describe('message layouts', () => {
  it('Header: u16 id, u16 command, u32 size, u32 flags, u32 error', () => {
    const bytes = Header.encode({ id: 0x1234, command: 9, size: 32, flags: 0x21, error: 22 });
    expect([...bytes]).toEqual(hex('3412 0900 20000000 21000000 16000000'));
  });

  it('VersionPrefix: u16 major, u16 minor', () => {
    expect([...VersionPrefix.encode({ major: 0, minor: 1 })]).toEqual(hex('0000 0100'));
  });

  it('DmaMap: u32 argsz, u32 flags, u64 offset, u64 address, u64 size', () => {
    const value = { argsz: 32, flags: 3, offset: 0x1000n, address: 0x1_0000_0000n, size: 0x8000n };
    const bytes = hex('20000000 03000000 0010000000000000 0000000001000000 0080000000000000');
    expect([...DmaMap.encode(value)]).toEqual(bytes);
    expect(DmaMap.decode(new Uint8Array(bytes))).toEqual(value);
  });

  it('DmaUnmap: u32 argsz, u32 flags, u64 address, u64 size', () => {
    const value = { argsz: 24, flags: 2, address: 0xfffff000n, size: 0x1000n };
    expect([...DmaUnmap.encode(value)]).toEqual(
      hex('18000000 02000000 00f0ffff00000000 0010000000000000'),
    );
  });

  it('DirtyBitmap: u64 page size, u64 size', () => {
    expect([...DirtyBitmap.encode({ pageSize: 4096n, size: 8n })]).toEqual(
      hex('0010000000000000 0800000000000000'),
    );
  });

  it('DeviceInfo: u32 argsz, u32 flags, u32 regions, u32 interrupts', () => {
    expect([...DeviceInfo.encode({ argsz: 16, flags: 3, numRegions: 9, numIrqs: 5 })]).toEqual(
      hex('10000000 03000000 09000000 05000000'),
    );
  });

  it('RegionInfo: u32 argsz, u32 flags, u32 index, u32 cap offset, u64 size, u64 offset', () => {
    const value = { argsz: 80, flags: 0xf, index: 2, capOffset: 32, size: 0x4000n, offset: 2n };
    const bytes = hex('50000000 0f000000 02000000 20000000 0040000000000000 0200000000000000');
    expect([...RegionInfo.encode(value)]).toEqual(bytes);
    expect(RegionInfo.decode(new Uint8Array(bytes))).toEqual(value);
  });

  it('SparseMmap: u16 id, u16 version, u32 next, u32 areas, u32 reserved', () => {
    expect([
      ...SparseMmap.encode({ id: 1, version: 1, next: 0x40, areaCount: 2, reserved: 0 }),
    ]).toEqual(hex('0100 0100 40000000 02000000 00000000'));
  });

  it('RegionIoFds is 16 bytes and its entries 40', () => {
    expect([...RegionIoFds.encode({ argsz: 56, flags: 0, index: 0, count: 1 })]).toEqual(
      hex('38000000 00000000 00000000 01000000'),
    );
    const entry = { offset: 8n, size: 4n, fdIndex: 1, type: 0, flags: 2, padding: 0 };
    expect([...RegionIoFd.encode({ ...entry, dataMatch: 7n })]).toEqual(
      hex('0800000000000000 0400000000000000 01000000 00000000 02000000 00000000 0700000000000000'),
    );
  });

  it('IrqInfo: u32 argsz, u32 flags, u32 index, u32 count', () => {
    expect([...IrqInfo.encode({ argsz: 16, flags: 9, index: 2, count: 5 })]).toEqual(
      hex('10000000 09000000 02000000 05000000'),
    );
  });

  it('IrqSet: u32 argsz, u32 flags, u32 index, u32 start, u32 count', () => {
    const value = { argsz: 20, flags: 0x24, index: 2, start: 3, count: 4 };
    const bytes = hex('14000000 24000000 02000000 03000000 04000000');
    expect([...IrqSet.encode(value)]).toEqual(bytes);
    expect(IrqSet.decode(new Uint8Array(bytes))).toEqual(value);
  });

  it('RegionAccess: u64 offset, u32 region, u32 count', () => {
    const value = { offset: 0x1_0000_0004n, region: 7, count: 4 };
    const bytes = hex('0400000001000000 07000000 04000000');
    expect([...RegionAccess.encode(value)]).toEqual(bytes);
    expect(RegionAccess.decode(new Uint8Array(bytes))).toEqual(value);
  });

  it('DmaAccess: u64 address, u64 count', () => {
    expect([...DmaAccess.encode({ address: 0x2000n, count: 16n })]).toEqual(
      hex('0020000000000000 1000000000000000'),
    );
  });

  it('WriteMulti: u64 count, then entries of 24 bytes', () => {
    expect([...WriteMultiCount.encode({ count: 2n })]).toEqual(hex('0200000000000000'));
    expect([
      ...WriteMultiEntry.encode({ offset: 0x10n, region: 0, count: 2, data: 0xbeefn }),
    ]).toEqual(hex('1000000000000000 00000000 02000000 efbe000000000000'));
  });

  it('DeviceFeature: u32 argsz, u32 flags with the feature in the low half', () => {
    expect([...DeviceFeature.encode({ argsz: 8, flags: FeatureFlag.probe | 2 })]).toEqual(
      hex('08000000 02000400'),
    );
  });
});

describe('quirk 4: QEMU takes no reply longer than its request', () => {
  it('so the fixed replies have the size of their requests', () => {
    expect([DeviceInfo.size, IrqInfo.size, DmaUnmap.size, RegionAccess.size]).toEqual([
      16, 16, 24, 16,
    ]);
  });
});

describe('quirk 16: QEMU with a virtual IOMMU unmaps ranges that span many mappings', () => {
  it('reads such a request, and the one for everything', () => {
    const spanning = hex('18000000 00000000 0000000000000000 0000008000000000');
    expect(DmaUnmap.decode(new Uint8Array(spanning))).toEqual({
      argsz: 24,
      flags: 0,
      address: 0n,
      size: 0x8000_0000n,
    });
    const all = DmaUnmap.decode(new Uint8Array(hex(`18000000 02000000 ${'00'.repeat(16)}`)));
    expect(all.flags).toBe(UnmapFlag.all);
  });
});

describe('the cheap region access', () => {
  const out = { offset: 0, region: 0, count: 0 };

  it('reads what the record reads, above 4 GiB too', () => {
    readRegionAccess(new Uint8Array(hex('0400000001000000 07000000 04000000 aabbccdd')), out);
    expect(out).toEqual({ offset: 0x1_0000_0004, region: 7, count: 4 });
  });

  it('takes the highest safe offset and answers EINVAL for the next', () => {
    readRegionAccess(new Uint8Array(hex('ffffffffffff1f00 00000000 01000000')), out);
    expect(out.offset).toBe(Number.MAX_SAFE_INTEGER);
    const beyond = new Uint8Array(hex('0000000000002000 00000000 01000000'));
    expect(() => readRegionAccess(beyond, out)).toThrow(WireError);
    expect(() => readRegionAccess(beyond, out)).toThrow('below 2^53');
  });

  it('answers a body of 15 bytes with EINVAL', () => {
    expect(() => readRegionAccess(new Uint8Array(15), out)).toThrow('needs 16 bytes');
  });

  it('writes what the record writes', () => {
    const into = new Uint8Array(20);
    writeRegionAccess(into, 4, 0x12_3456_789a, 5, 0xffff_ffff);
    expect([...into]).toEqual(hex('00000000 9a78563412000000 05000000 ffffffff'));
  });
});

describe('numbers of the standard', () => {
  it('are those of the command table', () => {
    expect(Object.values(Command)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16]);
    expect(RegionIndex).toMatchObject({ bar0: 0, bar5: 5, rom: 6, config: 7, vga: 8 });
    expect(IrqIndex).toEqual({ intx: 0, msi: 1, msix: 2, err: 3, req: 4 });
  });

  it('have the standard names, and unknown ones their number', () => {
    expect(commandName(Command.regionRead)).toBe('REGION_READ');
    expect(commandName(Command.deviceGetRegionIoFds)).toBe('DEVICE_GET_REGION_IO_FDS');
    expect(commandName(0x8001)).toBe('EnableBegin');
    expect(commandName(0x9001)).toBe('command 0x9001');
  });
});
