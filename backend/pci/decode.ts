// Names an access: which registers it touched, and of each the fields, with before and after. Knows nothing of whoever
// answers: a register that is emulated and one that is passed through read alike. Access rules come from the tables.

import { loadUint } from '../../protocol/little-endian.ts';
import type { Piece, RegisterMap } from './register-map.ts';
import { ones } from './registers.ts';

/** One field of a write: `before` is undefined where nobody saw the register before. */
export interface FieldChange {
  readonly field: string;
  readonly before: number | undefined;
  readonly after: number;
}

/** One register of an access. */
export interface DecodedRegister extends Piece {
  /** The bytes that were read or written, little-endian; undefined for more than 4. */
  readonly value: number | undefined;
  /** What the whole register held before, as far as it was seen. */
  readonly before: number | undefined;
  /** What it holds afterwards, by its access rules. */
  readonly after: number | undefined;
  /** A read: the fields that are not 0. A write: the fields that it changes. */
  readonly fields: readonly FieldChange[];
}

/** What is known of a space's bytes: taken from reads, and from what writes leave there. */
export class SeenBytes {
  readonly #pages = new Map<number, Page>();

  /** `image`: where every byte is known from the start. */
  constructor(image?: Uint8Array) {
    image?.forEach((byte, offset) => {
      this.set(offset, 1, byte);
    });
  }

  /** The little-endian value of `length` bytes, at most 4; undefined where one of them was never seen. */
  value(offset: number, length: number): number | undefined {
    let value = 0;
    for (let lane = 0; lane < length; lane++) {
      const at = offset + lane;
      const page = this.#pages.get(Math.floor(at / PAGE_BYTES));
      if (page === undefined || page.isKnown[at % PAGE_BYTES] === 0) {
        return undefined;
      }
      value |= page.bytes[at % PAGE_BYTES]! << (8 * lane);
    }
    return value >>> 0;
  }

  set(offset: number, length: number, value: number): void {
    for (let lane = 0; lane < length; lane++) {
      const at = offset + lane;
      const page = this.#page(Math.floor(at / PAGE_BYTES));
      page.bytes[at % PAGE_BYTES] = value >>> (8 * lane);
      page.isKnown[at % PAGE_BYTES] = 1;
    }
  }

  #page(number: number): Page {
    let page = this.#pages.get(number);
    if (page === undefined) {
      if (this.#pages.size === MOST_PAGES) {
        this.#pages.clear();
      }
      page = { bytes: new Uint8Array(PAGE_BYTES), isKnown: new Uint8Array(PAGE_BYTES) };
      this.#pages.set(number, page);
    }
    return page;
  }
}

interface Page {
  readonly bytes: Uint8Array;
  readonly isKnown: Uint8Array;
}

const PAGE_BYTES = 4096;
/** Whoever touches more of a BAR than this is told less of what was there before. */
const MOST_PAGES = 4096;

/** Names the pieces of one access and takes note of what it left in `seen`. */
export function decodeAccess(
  map: RegisterMap,
  seen: SeenBytes,
  access: { readonly isWrite: boolean; readonly offset: number; readonly bytes: Uint8Array },
): DecodedRegister[] {
  return map
    .pieces(access.offset, access.bytes.length)
    .map((piece) =>
      access.isWrite ? decodeWrite(piece, seen, access) : decodeRead(piece, seen, access),
    );
}

interface Bytes {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

function decodeRead(piece: Piece, seen: SeenBytes, { offset, bytes }: Bytes): DecodedRegister {
  const value = loadUint(bytes, piece.offset - offset, piece.length);
  seen.set(piece.offset, piece.length, value);
  const { register } = piece;
  if (register === undefined) {
    return decoded(piece, value, undefined, undefined, NO_FIELDS);
  }
  const whole = seen.value(register.offset, register.register.bytes);
  const covered = coverage(piece);
  const read = shifted(piece, value);
  const fields: FieldChange[] = [];
  for (const { name, mask, low } of register.fields) {
    const after = (read & mask) >>> low;
    if ((mask & ~covered) === 0 && after !== 0) {
      fields.push({ field: name, before: undefined, after });
    }
  }
  return decoded(piece, value, whole, whole, fields);
}

function decodeWrite(piece: Piece, seen: SeenBytes, { offset, bytes }: Bytes): DecodedRegister {
  const value = loadUint(bytes, piece.offset - offset, piece.length);
  const { register } = piece;
  if (register === undefined) {
    seen.set(piece.offset, piece.length, value);
    return decoded(piece, value, undefined, undefined, NO_FIELDS);
  }
  const { register: rules } = register;
  const covered = coverage(piece);
  const written = shifted(piece, value);
  const before = seen.value(register.offset, rules.bytes);
  const known = before ?? 0;
  const after =
    ((known & ~(rules.rw & covered) & ~(written & rules.rw1c)) | (written & rules.rw & covered)) >>>
    0;
  if (before !== undefined) {
    seen.set(register.offset, rules.bytes, after);
  }
  const fields: FieldChange[] = [];
  for (const { name, mask, low, isReadOnly } of register.fields) {
    if (
      isReadOnly ||
      (mask & covered) === 0 ||
      (before !== undefined && ((before ^ after) & mask) === 0)
    ) {
      continue;
    }
    const old = before === undefined ? undefined : (before & mask) >>> low;
    fields.push({ field: name, before: old, after: (after & mask) >>> low });
  }
  return decoded(piece, value, before, before === undefined ? undefined : after, fields);
}

const NO_FIELDS: readonly FieldChange[] = [];

/** Written out, because a million are made. */
function decoded(
  { register, name, offset, length }: Piece,
  value: number,
  before: number | undefined,
  after: number | undefined,
  fields: readonly FieldChange[],
): DecodedRegister {
  return { register, name, offset, length, value, before, after, fields };
}

/** Which bits of its register a piece covers. */
function coverage({ register, offset, length }: Piece): number {
  return (ones(8 * length) << (8 * (offset - register!.offset))) >>> 0;
}

function shifted(piece: Piece, value: number): number {
  return (value << (8 * (piece.offset - piece.register!.offset))) >>> 0;
}

/** Small numbers as people count, large ones as engineers write addresses. */
function shown(value: number | undefined): string {
  if (value === undefined) {
    return '?';
  }
  return value < 1024 ? String(value) : `0x${value.toString(16)}`;
}

/** One line for people, without names of functions and times: `0x0019  vfEnable 0→1, vfMemorySpaceEnable 0→1`. */
export function describeRegister(decoded: DecodedRegister, isWrite: boolean): string {
  const value = `0x${(decoded.value ?? 0).toString(16).padStart(2 * decoded.length, '0')}`;
  const fields = decoded.fields.map(({ field, before, after }) =>
    isWrite ? `${field} ${shown(before)}→${shown(after)}` : `${field} ${shown(after)}`,
  );
  return fields.length === 0 ? value : `${value}  ${fields.join(', ')}`;
}
