// The register language: a header or a capability is a table of named registers and fields. Every place and every mask
// is asked of a table here, whoever holds the bytes: register-block.ts, an image of config space, or the hardware.

import { loadUint } from '../../protocol/little-endian.ts';

const ACCESSES = ['ro', 'rw', 'rw1c'] as const;

/** `ro`: writes are ignored; `rw`: keeps what is written; `rw1c`: writing 1 clears the bit. */
export type Access = (typeof ACCESSES)[number];

export interface Field {
  readonly high: number;
  readonly low: number;
  readonly access: Access;
}

type Fields = Readonly<Record<string, Field>>;

/** One register: `offset` counts from the block's start; `rw` and `rw1c` are masks over its bits. */
export interface Register<F extends Fields = Fields> {
  readonly offset: number;
  readonly bytes: 1 | 2 | 4;
  readonly rw: number;
  readonly rw1c: number;
  readonly fields: F;
}

export type RegisterTable = Readonly<Record<string, Register>>;
export type RegisterName<T extends RegisterTable> = keyof T & string;
export type FieldName<T extends RegisterTable, R extends RegisterName<T>> = keyof T[R]['fields'] &
  string;

/** A one-bit field. */
export function bit(position: number, access: Access): Field {
  return { high: position, low: position, access };
}

/** A field of the bits `high`..`low`, both included, as the standard writes them (`15:0`). */
export function bits(high: number, low: number, access: Access): Field {
  return { high, low, access };
}

type NoFields = Record<never, Field>;

interface RegisterMaker {
  (offset: number, spec: Access): Register<NoFields>;
  <const F extends Fields>(offset: number, spec: F): Register<F>;
}

export const reg8: RegisterMaker = registerMaker(1);
export const reg16: RegisterMaker = registerMaker(2);
export const reg32: RegisterMaker = registerMaker(4);

function registerMaker(bytes: 1 | 2 | 4): RegisterMaker {
  const all = ones(8 * bytes);
  return (<F extends Fields>(offset: number, spec: Access | F) => {
    if (typeof spec === 'string') {
      insistOnAccess(spec);
      const rw = spec === 'rw' ? all : 0;
      const rw1c = spec === 'rw1c' ? all : 0;
      return { offset, bytes, rw, rw1c, fields: {} };
    }
    let named = 0;
    let rw = 0;
    let rw1c = 0;
    for (const [name, field] of Object.entries(spec)) {
      if (field.low < 0 || field.high < field.low || field.high >= 8 * bytes) {
        throw new RangeError(
          `field ${name} (${field.high}:${field.low}) lies outside its ${8 * bytes}-bit register`,
        );
      }
      insistOnAccess(field.access);
      const mask = fieldMask(field);
      if ((named & mask) !== 0) {
        throw new RangeError(`field ${name} (${field.high}:${field.low}) overlaps another field`);
      }
      named |= mask;
      if (field.access === 'rw') {
        rw |= mask;
      }
      if (field.access === 'rw1c') {
        rw1c |= mask;
      }
    }
    return { offset, bytes, rw: rw >>> 0, rw1c: rw1c >>> 0, fields: spec };
  }) as RegisterMaker;
}

/** Tables may be of somebody else's code. */
function insistOnAccess(access: Access): void {
  if (!ACCESSES.includes(access)) {
    throw new RangeError(`access ${access}: it must be one of ${ACCESSES.join(', ')}`);
  }
}

/** The same register where no bit can be written: what a function that lacks a feature shows of it. */
export function readOnly<F extends Fields>(register: Register<F>): Register<F> {
  const fields = Object.fromEntries(
    Object.entries(register.fields).map(([name, field]) => [name, { ...field, access: 'ro' }]),
  ) as unknown as F;
  return { ...register, rw: 0, rw1c: 0, fields };
}

/** The largest number that fits so many bits, at most 32. */
export function ones(count: number): number {
  return count >= 32 ? 0xffff_ffff : 2 ** count - 1;
}

/** The bits of a field within its register. */
export function fieldMask(field: Field): number {
  return (ones(field.high - field.low + 1) << field.low) >>> 0;
}

/** The bits of one or more fields within their register. */
export function maskOf<F extends Fields>(
  register: Register<F>,
  ...names: readonly (keyof F & string)[]
): number {
  return names.reduce((mask, name) => (mask | fieldMask(register.fields[name]!)) >>> 0, 0);
}

/** A register's value with these fields set and all else 0. @throws RangeError where one does not fit. */
export function registerValue<F extends Fields>(
  register: Register<F>,
  fields: { readonly [name in keyof F]?: number },
): number {
  let value = 0;
  for (const [name, wanted] of Object.entries(fields) as [string, number][]) {
    value |= fieldValue(name, register.fields[name]!, wanted);
  }
  return value >>> 0;
}

/** One field out of its register's value. */
export function fieldOf<F extends Fields>(
  register: Register<F>,
  name: keyof F & string,
  value: number,
): number {
  const field = register.fields[name]!;
  return (value & fieldMask(field)) >>> field.low;
}

/** A register's value in an image of config space; `base` is where its table starts. */
export function registerIn(image: Uint8Array, base: number, register: Register): number {
  return loadUint(image, base + register.offset, register.bytes);
}

/** A field's value at its place in the register. @throws RangeError where it does not fit. */
export function fieldValue(name: string, field: Field, value: number): number {
  if (!Number.isInteger(value) || value < 0 || value > ones(field.high - field.low + 1)) {
    throw new RangeError(`field ${name}: ${value} does not fit bits ${field.high}:${field.low}`);
  }
  return (value << field.low) >>> 0;
}
