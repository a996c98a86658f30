import fc from 'fast-check';
import { expect, it } from 'vitest';
import { WireError } from '../../protocol/errno.ts';
import { i32, record, u8, u16, u32, u64 } from '../../protocol/record.ts';
import {
  RegionAccess,
  readRegionAccess,
  writeRegionAccess,
} from '../../protocol/vfio-user/messages.ts';
import { decodeRegionInfo, encodeRegionInfo } from '../../protocol/vfio-user/region-info.ts';

const Sample = record({ a: u64, b: u8, c: i32, d: u16, e: u32 }, 'Sample');
const sample = fc.record({
  a: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  b: fc.integer({ min: 0, max: 0xff }),
  c: fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff }),
  d: fc.integer({ min: 0, max: 0xffff }),
  e: fc.integer({ min: 0, max: 0xffff_ffff }),
});

it('a record reads back what it wrote, at any offset', () => {
  fc.assert(
    fc.property(sample, fc.nat(50), (value, at) => {
      const into = new Uint8Array(at + Sample.size);
      expect(Sample.decode(Sample.encode(value, into, at), at)).toEqual(value);
    }),
  );
});

it('a record writes the bytes that it read, and agrees with DataView', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: Sample.size, maxLength: Sample.size }), (bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      const value = Sample.decode(bytes);
      expect(value).toEqual({
        a: view.getBigUint64(0, true),
        b: view.getUint8(8),
        c: view.getInt32(9, true),
        d: view.getUint16(13, true),
        e: view.getUint32(15, true),
      });
      expect(Sample.encode(value)).toEqual(new Uint8Array(bytes));
    }),
  );
});

it('the cheap region access agrees with the record', () => {
  const access = fc.record({
    offset: fc.maxSafeNat(),
    region: fc.integer({ min: 0, max: 0xffff_ffff }),
    count: fc.integer({ min: 0, max: 0xffff_ffff }),
  });
  fc.assert(
    fc.property(access, (value) => {
      const bytes = RegionAccess.encode({ ...value, offset: BigInt(value.offset) });
      const written = new Uint8Array(RegionAccess.size);
      writeRegionAccess(written, 0, value.offset, value.region, value.count);
      const out = { offset: 0, region: 0, count: 0 };
      readRegionAccess(bytes, out);
      expect(written).toEqual(bytes);
      expect(out).toEqual(value);
    }),
  );
});

it('arbitrary bytes as region info give a description or a WireError', () => {
  const valid = encodeRegionInfo(
    { index: 0, flags: 7, size: 65536, offset: 0, areas: [{ offset: 0, size: 4096 }] },
    64,
  );
  const mutation = fc.record({ at: fc.nat(valid.length - 1), byte: fc.nat(255) });
  fc.assert(
    fc.property(fc.array(mutation, { maxLength: 8 }), fc.nat(valid.length), (mutations, length) => {
      const bytes = valid.slice();
      for (const { at, byte } of mutations) {
        bytes[at] = byte;
      }
      try {
        decodeRegionInfo(bytes.subarray(0, length));
      } catch (error) {
        expect(error).toBeInstanceOf(WireError);
      }
    }),
    { numRuns: 500 },
  );
});
