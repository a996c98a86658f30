// Wire records as data: one declaration gives size, type, decoder and encoder. Little-endian, packed in the
// order of declaration. Pure; bytes are read one by one, so that decoding allocates nothing but the result.

import { WireError } from './errno.ts';
import { loadUint, storeUint } from './little-endian.ts';

/** One fixed-size field: how many bytes it takes and how they become a value. Bounds are the record's business. */
export interface Field<T> {
  readonly type: string;
  readonly size: number;
  read(bytes: Uint8Array, at: number): T;
  /** @throws RangeError when the value does not fit: our own fault, never the peer's. */
  write(bytes: Uint8Array, at: number, value: T): void;
}

type Fields = Record<string, Field<number> | Field<bigint>>;
type Values<F extends Fields> = { -readonly [K in keyof F]: ReturnType<F[K]['read']> };

/** A packed layout of named fields. */
export interface RecordCodec<T> {
  readonly name: string;
  /** Bytes on the wire. */
  readonly size: number;
  /** Byte offset of a field from the record's start. */
  offsetOf(field: keyof T & string): number;
  /** Reads one record at byte `at`. @throws WireError EINVAL when the bytes end before the record does. */
  decode(bytes: Uint8Array, at?: number): T;
  /** Writes one record at byte `at` of `into` (default: new bytes of exactly its size) and gives `into` back. */
  encode(value: Readonly<T>, into?: Uint8Array, at?: number): Uint8Array;
}

/** The value type of a record: `RecordOf<typeof RegionAccess>`. */
export type RecordOf<R> = R extends RecordCodec<infer T> ? T : never;

/** Reads a little-endian u32; the caller has checked the bounds. */
export function readU32(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0
  );
}

/** Writes a little-endian u32; the caller has checked the bounds; higher bits are dropped. */
export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

function integerField(type: string, size: number, low: number, high: number): Field<number> {
  const unusedBits = 32 - size * 8;
  const signed = low < 0;
  return {
    type,
    size,
    read(bytes, at) {
      const value = loadUint(bytes, at, size);
      return signed ? (value << unusedBits) >> unusedBits : value;
    },
    write(bytes, at, value) {
      if (!Number.isInteger(value) || value < low || value > high) {
        throw new RangeError(
          `${value} is not a ${type}: it must be a whole number ${low}..${high}`,
        );
      }
      storeUint(bytes, at, size, value);
    },
  };
}

export const u8 = integerField('u8', 1, 0, 0xff);
export const u16 = integerField('u16', 2, 0, 0xffff);
export const u32: Field<number> = { ...integerField('u32', 4, 0, 0xffff_ffff), read: readU32 };
export const i32 = integerField('i32', 4, -0x8000_0000, 0x7fff_ffff);

export const u64: Field<bigint> = {
  type: 'u64',
  size: 8,
  read(bytes, at) {
    const high = readU32(bytes, at + 4);
    const low = BigInt(readU32(bytes, at));
    return high === 0 ? low : (BigInt(high) << 32n) | low;
  },
  write(bytes, at, value) {
    if (typeof value !== 'bigint' || value < 0n || value > 0xffff_ffff_ffff_ffffn) {
      throw new RangeError(`${value} is not a u64: it must be a bigint 0..2^64-1`);
    }
    writeU32(bytes, at, Number(value & 0xffff_ffffn));
    writeU32(bytes, at + 4, Number(value >> 32n));
  },
};

/** Declares a packed little-endian record; `name` is what errors call it (default: its fields' names). */
export function record<F extends Fields>(
  fields: F,
  name: string = `{${Object.keys(fields).join(', ')}}`,
): RecordCodec<Values<F>> {
  type T = Values<F>;
  const offsets = new Map<string, number>();
  const layout: { key: string; field: Field<number | bigint>; offset: number }[] = [];
  let size = 0;
  for (const [key, field] of Object.entries(fields)) {
    offsets.set(key, size);
    layout.push({ key, field: field as Field<number | bigint>, offset: size });
    size += field.size;
  }
  return {
    name,
    size,
    offsetOf(field) {
      const offset = offsets.get(field);
      if (offset === undefined) {
        throw new RangeError(`${name} has no field ${field}`);
      }
      return offset;
    },
    decode(bytes, at = 0) {
      if (at < 0 || at + size > bytes.length) {
        const has = Math.max(0, bytes.length - at);
        throw new WireError(
          'EINVAL',
          `${name} needs ${size} bytes at ${at}, the message has ${has}`,
        );
      }
      const value: Record<string, number | bigint> = {};
      for (const { key, field, offset } of layout) {
        value[key] = field.read(bytes, at + offset);
      }
      return value as T;
    },
    encode(value, into = new Uint8Array(size), at = 0) {
      if (at < 0 || at + size > into.length) {
        throw new RangeError(`${name} needs ${size} bytes at ${at}, the buffer has ${into.length}`);
      }
      const values = value as Record<string, number | bigint>;
      for (const { key, field, offset } of layout) {
        field.write(into, at + offset, values[key]!);
      }
      return into;
    },
  };
}

/** The one way from a 64-bit wire value to a number. @throws WireError EINVAL above 2^53-1; `what` names the value. */
export function toNumber(value: bigint, what: string): number {
  if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new WireError('EINVAL', `${what} is 0x${value.toString(16)}: it must be below 2^53`);
  }
  return Number(value);
}
