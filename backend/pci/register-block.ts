// The bytes behind a register table. The block knows byte lanes, access rules and reset values, so that 1-, 2- and
// 4-byte accesses behave alike; what a write *means* is decided by its caller, from the named changes that it returns.

import { loadUint } from '../../protocol/little-endian.ts';
import { CopyOnWrite } from './copy-on-write.ts';
import { type LayoutOptions, RegisterLayout } from './register-layout.ts';
import {
  type Field,
  type FieldName,
  fieldMask,
  fieldValue,
  type RegisterName,
  type RegisterTable,
} from './registers.ts';

/** A register with a writable bit in the bytes that were written, even where the value stayed the same. */
export interface Change<T extends RegisterTable> {
  readonly register: RegisterName<T>;
  readonly before: number;
  readonly after: number;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The bytes of one register table. The guest uses `read` and `write`, the device `get`, `set` and the fields. */
export class RegisterBlock<T extends RegisterTable> {
  readonly #layout: RegisterLayout<T>;
  readonly #value: CopyOnWrite;
  /** Write masks of its own, once they are narrower than the layout's. */
  #narrowed: Uint8Array | undefined;

  /** Its registers are as after a reset. */
  constructor(layout: RegisterLayout<T>) {
    this.#layout = layout;
    this.#value = new CopyOnWrite(layout.resetValue);
  }

  /** A block that is the only one of its kind. @throws RangeError as the layout does */
  static of<T extends RegisterTable>(table: T, options: LayoutOptions<T>): RegisterBlock<T> {
    return new RegisterBlock(new RegisterLayout(table, options));
  }

  /** Bytes. */
  get length(): number {
    return this.#layout.length;
  }

  get(name: RegisterName<T>): number {
    const register = this.#layout.register(name);
    return loadUint(this.#value.bytes, register.offset, register.bytes);
  }

  /** A 64-bit value whose halves are two registers. */
  getPair(low: RegisterName<T>, high: RegisterName<T>): bigint {
    return (BigInt(this.get(high)) << 32n) | BigInt(this.get(low));
  }

  /** Sets a register on the device's behalf: access rules do not apply. */
  set(name: RegisterName<T>, value: number): void {
    this.#layout.store(this.#value.writable, name, value);
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
    return loadUint(this.#value.bytes, offset, length);
  }

  /** The guest's write, by the access rules; outside the block throws. */
  write(offset: number, length: 1 | 2 | 4, value: number): Change<T>[] {
    this.#checkRange(offset, length);
    const changes = this.#touchedBy(offset, length);
    if (changes.length === 0) {
      return changes;
    }
    const bytes = this.#value.writable;
    const { rw1c } = this.#layout;
    for (let lane = 0; lane < length; lane++) {
      const at = offset + lane;
      const written = (value >>> (8 * lane)) & 0xff;
      const rw = this.#rw[at]!;
      bytes[at] = (bytes[at]! & ~rw & ~(written & rw1c[at]!)) | (written & rw);
    }
    for (const change of changes) {
      change.after = this.get(change.register);
    }
    return changes;
  }

  /** Puts every register back to its reset value; write masks stay as they are. */
  reset(): void {
    this.#value.reset();
  }

  /** Narrows a register's `rw` bits to those in `mask` from now on; it can never widen what the table allows. */
  setWriteMask(name: RegisterName<T>, mask: number): void {
    this.#narrowed ??= this.#layout.rw.slice();
    this.#layout.narrow(this.#narrowed, name, mask);
  }

  get #rw(): Uint8Array {
    return this.#narrowed ?? this.#layout.rw;
  }

  #field(name: RegisterName<T>, fieldName: string): Field {
    const field = this.#layout.register(name).fields[fieldName];
    if (field === undefined) {
      throw new RangeError(`no field is called ${name}.${fieldName}`);
    }
    return field;
  }

  /** The registers with a writable bit in these bytes, before they are written. */
  #touchedBy(offset: number, length: number): Mutable<Change<T>>[] {
    const changes: Mutable<Change<T>>[] = [];
    for (let at = offset; at < offset + length; at++) {
      const register = this.#layout.nameAt(at);
      const isWritable = (this.#rw[at]! | this.#layout.rw1c[at]!) !== 0;
      if (register !== undefined && isWritable && register !== changes.at(-1)?.register) {
        const before = this.get(register);
        changes.push({ register, before, after: before });
      }
    }
    return changes;
  }

  #checkRange(offset: number, length: number): void {
    if (offset < 0 || offset + length > this.length) {
      throw new RangeError(
        `${length} bytes at offset 0x${offset.toString(16)} lie outside a block of ${this.length} bytes`,
      );
    }
  }
}
