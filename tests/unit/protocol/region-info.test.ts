import { describe, expect, it } from 'vitest';
import { WireError } from '../../../protocol/errno.ts';
import { RegionFlag, RegionInfo } from '../../../protocol/vfio-user/messages.ts';
import {
  decodeRegionInfo,
  encodeRegionInfo,
  regionInfoSize,
} from '../../../protocol/vfio-user/region-info.ts';

const flags = RegionFlag.read | RegionFlag.write | RegionFlag.mmap;
const plain = { index: 7, flags: RegionFlag.read, size: 4096, offset: 0 };
const sparse = {
  index: 0,
  flags,
  size: 0x4000,
  offset: 0x100_0000_0000,
  areas: [
    { offset: 0x1000, size: 0x1000 },
    { offset: 0x3000, size: 0x1000 },
  ],
};

describe('a region info reply', () => {
  it('without areas is 32 bytes and says so in argsz', () => {
    const body = encodeRegionInfo(plain, 32);
    expect(body.length).toBe(32);
    expect(RegionInfo.decode(body)).toMatchObject({ argsz: 32, flags: 1, capOffset: 0 });
  });

  it('with areas is one sparse-mmap capability at byte 32', () => {
    const body = encodeRegionInfo(sparse, 80);
    expect(body.length).toBe(80);
    expect([...body.subarray(0, 16)]).toEqual([80, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0]);
    expect([...body.subarray(32, 48)]).toEqual([1, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    expect([...body.subarray(48, 64)]).toEqual([0, 16, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0]);
  });

  it('is cut to 32 bytes when argsz is too small, and names the argsz to ask again with', () => {
    const body = encodeRegionInfo(sparse, 79);
    expect(body.length).toBe(32);
    expect(RegionInfo.decode(body)).toMatchObject({ argsz: 80, flags, capOffset: 0 });
    expect(regionInfoSize(sparse)).toBe(80);
  });

  it('never exceeds its own size when argsz has more room', () => {
    expect(encodeRegionInfo(sparse, 4096).length).toBe(80);
  });

  it('answers an argsz below 32 with EINVAL', () => {
    expect(() => encodeRegionInfo(plain, 31)).toThrow(WireError);
  });

  it('is read back as it was written', () => {
    expect(decodeRegionInfo(encodeRegionInfo(sparse, 80))).toEqual({
      ...sparse,
      argsz: 80,
      flags: flags | RegionFlag.caps,
    });
    expect(decodeRegionInfo(encodeRegionInfo(sparse, 32))).toMatchObject({ argsz: 80, areas: [] });
  });

  it('that is cut and points to a capability all the same, as other servers write it, is read', () => {
    const body = encodeRegionInfo(sparse, 32);
    body[4]! |= RegionFlag.caps;
    body[12] = 32;
    expect(decodeRegionInfo(body)).toMatchObject({ argsz: 80, areas: [] });
  });
});

describe('a region info reply from elsewhere', () => {
  it('may hold capabilities that we do not know before the one that we do', () => {
    const known = encodeRegionInfo(sparse, 80);
    const body = new Uint8Array(96);
    body.set(known.subarray(0, 32));
    body.set([9, 0, 1, 0, 48, 0, 0, 0], 32);
    body.set(known.subarray(32), 48);
    expect(decodeRegionInfo(body).areas).toEqual(sparse.areas);
  });

  it('whose capabilities loop is refused', () => {
    const body = encodeRegionInfo(sparse, 80);
    body[36] = 32;
    expect(() => decodeRegionInfo(body)).toThrow('links back');
  });

  it('whose capability lies in the fixed part, past the end or counts too many areas is refused', () => {
    const body = encodeRegionInfo(sparse, 80);
    const inFixedPart = body.slice();
    inFixedPart[12] = 8;
    const pastTheEnd = body.slice();
    pastTheEnd[12] = 76;
    const tooMany = body.slice();
    tooMany[40] = 3;
    expect(() => decodeRegionInfo(inFixedPart)).toThrow(WireError);
    expect(() => decodeRegionInfo(pastTheEnd)).toThrow(WireError);
    expect(() => decodeRegionInfo(tooMany)).toThrow('counts 3 areas');
  });

  it('with a size of 2^63 is refused', () => {
    const body = encodeRegionInfo(plain, 32);
    body[23] = 0x80;
    expect(() => decodeRegionInfo(body)).toThrow('size of region 7');
  });
});
