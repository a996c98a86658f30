// Names an access: which registers it touched, and of each the fields, with before and after. Knows nothing of whoever
// answers: a register that is emulated and one that is passed through read alike. Access rules come from the tables.

import { loadUint } from '../../protocol/little-endian.ts';
import type { Piece, RegisterMap } from './register-map.ts';
import { type Field, fieldMask, ones } from './registers.ts';

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
  readonly #bytes = new Map<number, number>();

  /** `image`: where every byte is known from the start. */
  constructor(image?: Uint8Array) {
    image?.forEach((byte, offset) => {
      this.#bytes.set(offset, byte);
    });
  }

  /** The little-endian value of `length` bytes, at most 4; undefined where one of them was never seen. */
  value(offset: number, length: number): number | undefined {
    let value = 0;
    for (let lane = 0; lane < length; lane++) {
      const byte = this.#bytes.get(offset + lane);
      if (byte === undefined) {
        return undefined;
      }
      value |= byte << (8 * lane);
    }
    return value >>> 0;
  }

  set(offset: number, length: number, value: number): void {
    for (let lane = 0; lane < length; lane++) {
      this.#bytes.set(offset + lane, (value >>> (8 * lane)) & 0xff);
    }
  }

  /** Nothing is known any more: events are missing, or the function was reset. */
  forget(): void {
    this.#bytes.clear();
  }
}

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
    return { ...piece, value, before: undefined, after: undefined, fields: [] };
  }
  const whole = seen.value(register.offset, register.register.bytes);
  const covered = coverage(piece);
  const fields = Object.entries(register.register.fields)
    .filter(([, field]) => (fieldMask(field) & ~covered) === 0)
    .map(([name, field]) => ({
      field: name,
      before: undefined,
      after: extract(shifted(piece, value), field),
    }))
    .filter(({ after }) => after !== 0);
  return { ...piece, value, before: whole, after: whole, fields };
}

function decodeWrite(piece: Piece, seen: SeenBytes, { offset, bytes }: Bytes): DecodedRegister {
  const value = loadUint(bytes, piece.offset - offset, piece.length);
  const { register } = piece;
  if (register === undefined) {
    seen.set(piece.offset, piece.length, value);
    return { ...piece, value, before: undefined, after: undefined, fields: [] };
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
  const fields = Object.entries(rules.fields)
    .filter(([, field]) => (fieldMask(field) & covered) !== 0)
    .filter(([, field]) => field.access !== 'ro')
    .map(([name, field]) => ({
      field: name,
      before: before === undefined ? undefined : extract(before, field),
      after: extract(after, field),
    }))
    .filter((change) => change.before !== change.after);
  return { ...piece, value, before, after: before === undefined ? undefined : after, fields };
}

/** Which bits of its register a piece covers. */
function coverage({ register, offset, length }: Piece): number {
  return (ones(8 * length) << (8 * (offset - register!.offset))) >>> 0;
}

function shifted(piece: Piece, value: number): number {
  return (value << (8 * (piece.offset - piece.register!.offset))) >>> 0;
}

function extract(value: number, field: Field): number {
  return (value & fieldMask(field)) >>> field.low;
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
