import { describe, expect, it } from 'vitest';
import { Errno, errnoName, WireError } from '../../../protocol/errno.ts';
import { i32, record, toNumber, u8, u16, u32, u64 } from '../../../protocol/record.ts';

const Sample = record({ a: u8, b: u16, c: u32, d: i32, e: u64 }, 'Sample');
const value = { a: 0x12, b: 0x3456, c: 0xfedcba98, d: -2, e: 0x0102030405060708n };
const bytes = [
  0x12, 0x56, 0x34, 0x98, 0xba, 0xdc, 0xfe, 0xfe, 0xff, 0xff, 0xff, 8, 7, 6, 5, 4, 3, 2, 1,
];

describe('a record', () => {
  it('is packed, little-endian, in the order of declaration', () => {
    expect(Sample.size).toBe(19);
    expect([...Sample.encode(value)]).toEqual(bytes);
    expect(Sample.decode(new Uint8Array(bytes))).toEqual(value);
  });

  it('knows where each field lies', () => {
    expect([Sample.offsetOf('a'), Sample.offsetOf('c'), Sample.offsetOf('e')]).toEqual([0, 3, 11]);
  });

  it('reads and writes at an offset and leaves the bytes around alone', () => {
    const into = new Uint8Array(25).fill(0xee);
    Sample.encode(value, into, 3);
    expect([...into]).toEqual([0xee, 0xee, 0xee, ...bytes, 0xee, 0xee, 0xee]);
    expect(Sample.decode(into, 3)).toEqual(value);
  });

  it('reads a view that starts in the middle of its buffer', () => {
    const whole = new Uint8Array([9, 9, ...bytes]);
    expect(Sample.decode(whole.subarray(2))).toEqual(value);
  });

  it('answers a short message with EINVAL that names the record, what it has and what it needs', () => {
    const decode = () => Sample.decode(new Uint8Array(18));
    expect(decode).toThrow(WireError);
    expect(decode).toThrow('Sample needs 19 bytes at 0, the message has 18');
    expect(() => Sample.decode(new Uint8Array(30), 12)).toThrow('has 18');
    expect(() => Sample.decode(new Uint8Array(30), -1)).toThrow(WireError);
    expect(() => Sample.decode(new Uint8Array(3), 9)).toThrow('has 0');
  });

  it('refuses to write a value that does not fit its field', () => {
    expect(() => Sample.encode({ ...value, a: 256 })).toThrow(RangeError);
    expect(() => Sample.encode({ ...value, b: -1 })).toThrow(RangeError);
    expect(() => Sample.encode({ ...value, c: 1.5 })).toThrow(RangeError);
    expect(() => Sample.encode({ ...value, d: 2 ** 31 })).toThrow(RangeError);
    expect(() => Sample.encode({ ...value, e: -1n })).toThrow(RangeError);
    expect(() => Sample.encode({ ...value, e: 2n ** 64n })).toThrow(RangeError);
  });

  it('refuses to write past the end of the buffer', () => {
    expect(() => Sample.encode(value, new Uint8Array(18))).toThrow(RangeError);
  });

  it('is called by its fields where it has no name', () => {
    expect(record({ x: u8, y: u8 }).name).toBe('{x, y}');
  });
});

describe('toNumber', () => {
  it('gives every safe integer and answers EINVAL for the rest', () => {
    expect(toNumber(2n ** 53n - 1n, 'offset')).toBe(Number.MAX_SAFE_INTEGER);
    expect(() => toNumber(2n ** 53n, 'offset')).toThrow('offset is 0x20000000000000');
    expect(() => toNumber(2n ** 53n, 'offset')).toThrow(WireError);
  });
});

describe('errno', () => {
  it('carries Linux numbers', () => {
    expect(Errno).toMatchObject({ EPERM: 1, EINVAL: 22, ENOTSUP: 95, EPROTO: 71, ECANCELED: 125 });
  });

  it('is named, or numbered when it is not listed', () => {
    expect(errnoName(22)).toBe('EINVAL');
    expect(errnoName(999)).toBe('errno 999');
  });

  it('goes with a WireError by name and by number', () => {
    expect(new WireError('EBUSY', 'x')).toMatchObject({ code: 'EBUSY', errno: 16, message: 'x' });
  });
});
