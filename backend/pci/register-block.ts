// The bytes behind a register table. The block knows byte lanes, access rules and reset values, so that 1-, 2- and
// 4-byte accesses behave alike; what a write *means* is decided by its caller, from the named changes that it returns.

import { loadUint, storeUint } from '../../protocol/little-endian.ts';
import {
  type Field,
  type FieldName,
  fieldMask,
  fieldValue,
  ones,
  type Register,
  type RegisterName,
  type RegisterTable,
} from './registers.ts';

/** A register with a writable bit in the bytes that were written, even where the value stayed the same. */
export interface Change<T extends RegisterTable> {
  readonly register: RegisterName<T>;
  readonly before: number;
  readonly after: number;
}

const UNNAMED = -1;

/** The bytes of one register table. The guest uses `read` and `write`, the device `get`, `set` and the fields. */
export class RegisterBlock<T extends RegisterTable> {
  readonly length: number;
  readonly #table: T;
  readonly #names: readonly RegisterName<T>[];
  readonly #nameAt: Int16Array;
  readonly #value: Uint8Array;
  readonly #resetValue: Uint8Array;
  readonly #rw: Uint8Array;
  readonly #rw1c: Uint8Array;

  /** `length` in bytes; registers without an entry in `reset` start as 0. Overlapping registers throw. */
  constructor(
    table: T,
    options: { length: number; reset?: Partial<Record<RegisterName<T>, number>> },
  ) {
    this.length = options.length;
    this.#table = table;
    this.#names = Object.keys(table);
    this.#nameAt = new Int16Array(this.length).fill(UNNAMED);
    this.#value = new Uint8Array(this.length);
    this.#resetValue = new Uint8Array(this.length);
    this.#rw = new Uint8Array(this.length);
    this.#rw1c = new Uint8Array(this.length);
    for (const [index, name] of this.#names.entries()) {
      const register = this.#register(name);
      this.#claim(index, name, register);
      storeUint(this.#rw, register.offset, register.bytes, register.rw);
      storeUint(this.#rw1c, register.offset, register.bytes, register.rw1c);
      this.set(name, options.reset?.[name] ?? 0);
    }
    this.#resetValue.set(this.#value);
  }

  get(name: RegisterName<T>): number {
    const register = this.#register(name);
    return loadUint(this.#value, register.offset, register.bytes);
  }

  /** A 64-bit value whose halves are two registers. */
  getPair(low: RegisterName<T>, high: RegisterName<T>): bigint {
    return (BigInt(this.get(high)) << 32n) | BigInt(this.get(low));
  }

  /** Sets a register on the device's behalf: access rules do not apply. */
  set(name: RegisterName<T>, value: number): void {
    const register = this.#register(name);
    if (!Number.isInteger(value) || value < 0 || value > ones(8 * register.bytes)) {
      throw new RangeError(
        `register ${name}: ${value} does not fit its ${8 * register.bytes} bits; pass an unsigned number`,
      );
    }
    storeUint(this.#value, register.offset, register.bytes, value);
  }

  field<R extends RegisterName<T>>(name: R, fieldName: FieldName<T, R>): number {
    const field = this.#field(name, fieldName);
    return (this.get(name) & fieldMask(field)) >>> field.low;
  }

  /** Sets a field on the device's behalf: access rules do not apply. */
  setField<R extends RegisterName<T>>(name: R, fieldName: FieldName<T, R>, value: number): void {
    const field = this.#field(name, fieldName);
    const kept = this.get(name) & ~fieldMask(field);
    this.set(name, (kept | fieldValue(`${name}.${fieldName}`, field, value)) >>> 0);
  }

  /** The guest's read of `length` bytes, little-endian; outside the block throws. */
  read(offset: number, length: 1 | 2 | 4): number {
    this.#checkRange(offset, length);
    return loadUint(this.#value, offset, length);
  }

  /** The guest's write, by the access rules; outside the block throws. */
  write(offset: number, length: 1 | 2 | 4, value: number): Change<T>[] {
    this.#checkRange(offset, length);
    const touched = this.#writableIn(offset, length);
    const before = touched.map((name) => this.get(name));
    for (let lane = 0; lane < length; lane++) {
      const at = offset + lane;
      const written = (value >>> (8 * lane)) & 0xff;
      const rw = this.#rw[at]!;
      const kept = this.#value[at]! & ~rw & ~(written & this.#rw1c[at]!);
      this.#value[at] = kept | (written & rw);
    }
    return touched.map((register, index) => ({
      register,
      before: before[index]!,
      after: this.get(register),
    }));
  }

  /** Puts every register back to its reset value; write masks stay as they are. */
  reset(): void {
    this.#value.set(this.#resetValue);
  }

  /** Narrows a register's `rw` bits to those in `mask` from now on; it can never widen what the table allows. */
  setWriteMask(name: RegisterName<T>, mask: number): void {
    const register = this.#register(name);
    storeUint(this.#rw, register.offset, register.bytes, (register.rw & mask) >>> 0);
  }

  #register(name: RegisterName<T>): Register {
    const register = this.#table[name];
    if (register === undefined) {
      throw new RangeError(`no register is called ${name}`);
    }
    return register;
  }

  #field(name: RegisterName<T>, fieldName: string): Field {
    const field = this.#register(name).fields[fieldName];
    if (field === undefined) {
      throw new RangeError(`no field is called ${name}.${fieldName}`);
    }
    return field;
  }

  #claim(index: number, name: string, register: Register): void {
    if (register.offset < 0 || register.offset + register.bytes > this.length) {
      throw new RangeError(`register ${name} lies outside its block of ${this.length} bytes`);
    }
    for (let at = register.offset; at < register.offset + register.bytes; at++) {
      const other = this.#nameAt[at]!;
      if (other !== UNNAMED) {
        throw new RangeError(
          `registers ${this.#names[other]} and ${name} overlap at offset 0x${at.toString(16)}`,
        );
      }
      this.#nameAt[at] = index;
    }
  }

  #writableIn(offset: number, length: number): RegisterName<T>[] {
    const found: RegisterName<T>[] = [];
    let last = UNNAMED;
    for (let at = offset; at < offset + length; at++) {
      const index = this.#nameAt[at]!;
      if (index === last || (this.#rw[at]! | this.#rw1c[at]!) === 0) {
        continue;
      }
      last = index;
      found.push(this.#names[index]!);
    }
    return found;
  }

  #checkRange(offset: number, length: number): void {
    if (offset < 0 || offset + length > this.length) {
      throw new RangeError(
        `${length} bytes at offset 0x${offset.toString(16)} lie outside a block of ${this.length} bytes`,
      );
    }
  }
}
