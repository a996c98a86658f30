// What all register blocks of one kind have in common: which register is at which byte, what can be written, and the values
// after a reset. Made once for each kind of function, however many functions there are.

import { storeUint } from '../../protocol/little-endian.ts';
import { ones, type Register, type RegisterName, type RegisterTable } from './registers.ts';

export interface LayoutOptions<T extends RegisterTable> {
  /** Bytes. */
  readonly length: number;
  /** Registers without an entry are 0 after a reset. */
  readonly reset?: Partial<Record<RegisterName<T>, number>>;
  /** Registers of which fewer `rw` bits than the table's can be written. */
  readonly writable?: Partial<Record<RegisterName<T>, number>>;
}

const UNNAMED = -1;

export class RegisterLayout<T extends RegisterTable> {
  readonly length: number;
  /** Nobody writes to these; by byte of the block. */
  readonly resetValue: Uint8Array;
  readonly rw: Uint8Array;
  readonly rw1c: Uint8Array;
  readonly #table: T;
  readonly #names: readonly RegisterName<T>[];
  readonly #nameAt: Int16Array;

  /** @throws RangeError for registers that overlap or leave the block, and for values that do not fit */
  constructor(table: T, { length, reset, writable }: LayoutOptions<T>) {
    this.length = length;
    this.#table = table;
    this.#names = Object.keys(table);
    this.#nameAt = new Int16Array(length).fill(UNNAMED);
    this.resetValue = new Uint8Array(length);
    this.rw = new Uint8Array(length);
    this.rw1c = new Uint8Array(length);
    for (const [index, name] of this.#names.entries()) {
      const register = this.register(name);
      this.#claim(index, name, register);
      storeUint(this.rw1c, register.offset, register.bytes, register.rw1c);
      this.store(this.resetValue, name, reset?.[name] ?? 0);
      this.narrow(this.rw, name, writable?.[name] ?? register.rw);
    }
  }

  /** @throws RangeError where there is none of that name */
  register(name: RegisterName<T>): Register {
    const register = this.#table[name];
    if (register === undefined) {
      throw new RangeError(`no register is called ${name}`);
    }
    return register;
  }

  /** The register that a byte belongs to. */
  nameAt(offset: number): RegisterName<T> | undefined {
    const index = this.#nameAt[offset]!;
    return index === UNNAMED ? undefined : this.#names[index];
  }

  /** Puts a register's value into a block's bytes. @throws RangeError where it does not fit */
  store(bytes: Uint8Array, name: RegisterName<T>, value: number): void {
    const register = this.register(name);
    if (!Number.isInteger(value) || value < 0 || value > ones(8 * register.bytes)) {
      throw new RangeError(
        `register ${name}: ${value} does not fit its ${8 * register.bytes} bits; pass an unsigned number`,
      );
    }
    storeUint(bytes, register.offset, register.bytes, value);
  }

  /** Leaves of a register's `rw` bits those in `mask`; never more than the table has. */
  narrow(rw: Uint8Array, name: RegisterName<T>, mask: number): void {
    const register = this.register(name);
    storeUint(rw, register.offset, register.bytes, (register.rw & mask) >>> 0);
  }

  #claim(index: number, name: string, register: Register): void {
    if (register.offset < 0 || register.offset + register.bytes > this.length) {
      throw new RangeError(`register ${name} lies outside its block of ${this.length} bytes`);
    }
    for (let at = register.offset; at < register.offset + register.bytes; at++) {
      const other = this.nameAt(at);
      if (other !== undefined) {
        throw new RangeError(
          `registers ${other} and ${name} overlap at offset 0x${at.toString(16)}`,
        );
      }
      this.#nameAt[at] = index;
    }
  }
}
