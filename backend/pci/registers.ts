// The register language: a capability is a table of named registers and fields, and RegisterBlock is the bytes
// behind it. The block knows byte lanes, access rules and reset values, so that 1-, 2- and 4-byte accesses
// behave alike; what a write *means* is decided by its caller, from the named changes that it returns.

/** `ro`: writes are ignored; `rw`: keeps what is written; `rw1c`: writing 1 clears the bit. */
export type Access = 'ro' | 'rw' | 'rw1c';

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

/** A register with a writable bit in the bytes that were written, even where the value stayed the same. */
export interface Change<T extends RegisterTable> {
  readonly register: RegisterName<T>;
  readonly before: number;
  readonly after: number;
}

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

function ones(count: number): number {
  return count >= 32 ? 0xffff_ffff : 2 ** count - 1;
}

function fieldMask(field: Field): number {
  return (ones(field.high - field.low + 1) << field.low) >>> 0;
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
      store(this.#rw, register.offset, register.bytes, register.rw);
      store(this.#rw1c, register.offset, register.bytes, register.rw1c);
      this.set(name, options.reset?.[name] ?? 0);
    }
    this.#resetValue.set(this.#value);
  }

  get(name: RegisterName<T>): number {
    const register = this.#register(name);
    return load(this.#value, register.offset, register.bytes);
  }

  /** Sets a register on the device's behalf: access rules do not apply. */
  set(name: RegisterName<T>, value: number): void {
    const register = this.#register(name);
    if (!Number.isInteger(value) || value < 0 || value > ones(8 * register.bytes)) {
      throw new RangeError(
        `register ${name}: ${value} does not fit its ${8 * register.bytes} bits; pass an unsigned number`,
      );
    }
    store(this.#value, register.offset, register.bytes, value);
  }

  field<R extends RegisterName<T>>(name: R, fieldName: FieldName<T, R>): number {
    const field = this.#field(name, fieldName);
    return ((this.get(name) & fieldMask(field)) >>> field.low) >>> 0;
  }

  /** Sets a field on the device's behalf: access rules do not apply. */
  setField<R extends RegisterName<T>>(name: R, fieldName: FieldName<T, R>, value: number): void {
    const field = this.#field(name, fieldName);
    if (!Number.isInteger(value) || value < 0 || value > ones(field.high - field.low + 1)) {
      throw new RangeError(
        `field ${name}.${fieldName}: ${value} does not fit bits ${field.high}:${field.low}`,
      );
    }
    const kept = this.get(name) & ~fieldMask(field);
    this.set(name, (kept | (value << field.low)) >>> 0);
  }

  /** The guest's read of `length` bytes, little-endian; outside the block throws. */
  read(offset: number, length: 1 | 2 | 4): number {
    this.#checkRange(offset, length);
    return load(this.#value, offset, length);
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
    store(this.#rw, register.offset, register.bytes, (register.rw & mask) >>> 0);
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

function load(bytes: Uint8Array, offset: number, length: number): number {
  let value = 0;
  for (let lane = 0; lane < length; lane++) {
    value |= bytes[offset + lane]! << (8 * lane);
  }
  return value >>> 0;
}

function store(bytes: Uint8Array, offset: number, length: number, value: number): void {
  for (let lane = 0; lane < length; lane++) {
    bytes[offset + lane] = (value >>> (8 * lane)) & 0xff;
  }
}
