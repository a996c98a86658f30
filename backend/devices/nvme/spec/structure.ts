// Structures as the standard prints them: named fields at explicit offsets, zeros in between.

import type { Field } from '../../../../protocol/record.ts';

/** A field and where it is, in bytes from the structure's start. */
export interface Placed<T> {
  readonly offset: number;
  readonly field: Field<T>;
}

export function at<T>(offset: number, field: Field<T>): Placed<T> {
  return { offset, field };
}

/** ASCII text, padded with spaces. */
export function ascii(size: number): Field<string> {
  return {
    type: `ascii ${size}`,
    size,
    read: (bytes, offset) =>
      String.fromCharCode(...bytes.subarray(offset, offset + size)).trimEnd(),
    write: (bytes, offset, text) => {
      for (let index = 0; index < size; index++) {
        bytes[offset + index] = index < text.length ? text.charCodeAt(index) & 0x7f : 0x20;
      }
    },
  };
}

/** Text that ends with a zero byte. */
export function terminated(size: number): Field<string> {
  return {
    type: `text ${size}`,
    size,
    read: (bytes, offset) =>
      String.fromCharCode(...bytes.subarray(offset, offset + size)).split('\0')[0]!,
    write: (bytes, offset, text) => {
      for (let index = 0; index < Math.min(size - 1, text.length); index++) {
        bytes[offset + index] = text.charCodeAt(index);
      }
    },
  };
}

export function raw(size: number): Field<Uint8Array> {
  return {
    type: `bytes ${size}`,
    size,
    read: (bytes, offset) => bytes.slice(offset, offset + size),
    write: (bytes, offset, value) => bytes.set(value.subarray(0, size), offset),
  };
}

// biome-ignore lint/suspicious/noExplicitAny: fields of every type stand side by side
type Layout = Record<string, Placed<any>>;
type ValuesOf<L extends Layout> = { [K in keyof L]: ReturnType<L[K]['field']['read']> };

export interface Structure<V> {
  readonly size: number;
  /** What is not given is 0. */
  encode(values: Partial<V>, into?: Uint8Array, offset?: number): Uint8Array;
  decode(bytes: Uint8Array, offset?: number): V;
}

export function structure<L extends Layout>(size: number, layout: L): Structure<ValuesOf<L>> {
  return {
    size,
    encode(values, into = new Uint8Array(size), offset = 0) {
      for (const [name, value] of Object.entries(values)) {
        const placed = layout[name]!;
        placed.field.write(into, offset + placed.offset, value);
      }
      return into;
    },
    decode(bytes, offset = 0) {
      const values: Record<string, unknown> = {};
      for (const [name, placed] of Object.entries(layout)) {
        values[name] = placed.field.read(bytes, offset + placed.offset);
      }
      return values as ValuesOf<L>;
    },
  };
}
