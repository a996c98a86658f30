// Which register sits at which offset of a space: config space by its capability chains, a BAR by the tables that its
// device brings. Made from the tables that emulate the registers, so that a name is never written twice.

import { BAR_COUNT } from './bars.ts';
import { walkCapabilities, walkExtendedCapabilities } from './capability-chain.ts';
import { msixPlaces } from './msix-places.ts';
import { fieldMask, type Register, type RegisterTable } from './registers.ts';
import {
  type CapabilityLayout,
  extendedLayout,
  type FunctionKind,
  headerTable,
  standardLayout,
} from './spec/layouts.ts';
import { MSIX_ENTRY, MSIX_ENTRY_BYTES } from './spec/msix.ts';
import { titleOf } from './spec/titles.ts';

/** A register at its place: `offset` from the start of the space, `block` the capability it belongs to. */
export interface PlacedRegister {
  readonly block: string;
  /** Its name in the table. */
  readonly key: string;
  /** For people: "SR-IOV Control". */
  readonly name: string;
  readonly offset: number;
  readonly register: Register;
  /** Its fields, ready to be taken out of a value. */
  readonly fields: readonly PlacedField[];
}

/** A field with its bits within the register. */
export interface PlacedField {
  readonly name: string;
  readonly mask: number;
  readonly low: number;
  readonly isReadOnly: boolean;
}

/** A table at its place in a space. */
export interface PlacedTable {
  readonly title: string;
  readonly offset: number;
  readonly table: RegisterTable;
  /** What people call registers whose names in the table don't say it. */
  readonly names?: Readonly<Record<string, string>>;
}

/** A named piece of an access; `register` is undefined where no table names the bytes. */
export interface Piece {
  readonly register: PlacedRegister | undefined;
  readonly name: string;
  readonly offset: number;
  readonly length: number;
}

const MOST_REMEMBERED_BYTES = 8;
const MOST_REMEMBERED = 65_536;

export class RegisterMap {
  /** In order of their offsets. */
  readonly registers: readonly PlacedRegister[];
  readonly #tables: readonly PlacedTable[];
  /** What it is a map of. */
  readonly space: string;
  readonly #at = new Map<number, PlacedRegister>();

  /** `space` is what bytes are called that belong to nothing: "Config", "BAR 0". Of two registers at one place the first counts. */
  constructor(space: string, tables: readonly PlacedTable[]) {
    this.space = space;
    this.#tables = tables.toSorted((one, other) => one.offset - other.offset);
    const registers: PlacedRegister[] = [];
    for (const { title, offset: base, table, names } of tables) {
      for (const [key, register] of Object.entries(table)) {
        const offset = base + register.offset;
        if (this.#at.has(offset)) {
          continue;
        }
        const own = names?.[key] ?? titleOf(key);
        const name = title === '' ? own : `${title} ${own}`;
        const placed = { block: title, key, name, offset, register, fields: fieldsOf(register) };
        registers.push(placed);
        for (let lane = 0; lane < register.bytes; lane++) {
          this.#at.set(offset + lane, placed);
        }
      }
    }
    this.registers = registers.toSorted((one, other) => one.offset - other.offset);
  }

  /** The register that owns this byte. */
  at(offset: number): PlacedRegister | undefined {
    return this.#at.get(offset);
  }

  readonly #cut = new Map<number, readonly Piece[]>();

  /** Cuts an access into registers, in order; bytes between them become pieces without a register, at most 4 bytes each. */
  pieces(offset: number, length: number): readonly Piece[] {
    if (length > MOST_REMEMBERED_BYTES) {
      return this.#cutUp(offset, length);
    }
    // A driver touches the same few registers again and again.
    const key = offset * (MOST_REMEMBERED_BYTES + 1) + length;
    let pieces = this.#cut.get(key);
    if (pieces === undefined) {
      pieces = this.#cutUp(offset, length);
      if (this.#cut.size < MOST_REMEMBERED) {
        this.#cut.set(key, pieces);
      }
    }
    return pieces;
  }

  #cutUp(offset: number, length: number): Piece[] {
    const found: Piece[] = [];
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const register = this.at(at);
      const until =
        register === undefined ? this.#gapEnd(at) : register.offset + register.register.bytes;
      const stop = Math.min(end, until);
      found.push({
        register,
        name: register?.name ?? this.#nameless(at),
        offset: at,
        length: stop - at,
      });
      at = stop;
    }
    return found;
  }

  #gapEnd(from: number): number {
    let at = from + 1;
    while (at % 4 !== 0 && !this.#at.has(at)) {
      at++;
    }
    return at;
  }

  #nameless(offset: number): string {
    const before = this.#tables.findLast((table) => table.offset <= offset);
    const [title, from] =
      before === undefined || before.title === '' || this.space !== 'Config'
        ? [this.space, 0]
        : [before.title, before.offset];
    return `${title} +0x${(offset - from).toString(16)}`;
  }
}

function fieldsOf(register: Register): PlacedField[] {
  return Object.entries(register.fields).map(([name, field]) => ({
    name,
    mask: fieldMask(field),
    low: field.low,
    isReadOnly: field.access === 'ro',
  }));
}

/** The map of a config space whose chains are those of `image` (256 or 4096 bytes). */
export function configMap(image: Uint8Array, kind: FunctionKind): RegisterMap {
  const at = (layout: CapabilityLayout, offset: number, control: number): PlacedTable => ({
    title: layout.title,
    offset,
    table: layout.table(kind, control),
  });
  return new RegisterMap('Config', [
    { title: '', offset: 0, table: headerTable(kind) },
    ...walkCapabilities(image).map(({ id, offset }) =>
      at(standardLayout(id), offset, image[offset + 2]! | (image[offset + 3]! << 8)),
    ),
    ...walkExtendedCapabilities(image).map(({ id, offset }) => at(extendedLayout(id), offset, 0)),
  ]);
}

/** The longest table of vectors that is named entry by entry. */
const MOST_VECTORS = 2048;

/** The map of a BAR: the device's own tables, and the MSI-X table where the capability in `config` says that it lies here. */
export function barMap(
  region: number,
  tables: readonly PlacedTable[],
  config: Uint8Array,
): RegisterMap {
  const space = region < BAR_COUNT ? `BAR ${region}` : 'ROM';
  return new RegisterMap(space, [...tables, ...msixEntries(config, region)]);
}

function msixEntries(config: Uint8Array, region: number): PlacedTable[] {
  const msix = msixPlaces(config);
  if (msix === undefined || msix.table.bar !== region) {
    return [];
  }
  const count = Math.min(msix.vectors, MOST_VECTORS);
  return Array.from({ length: count }, (_, vector) => ({
    title: `MSI-X Vector ${vector}`,
    offset: msix.table.start + vector * MSIX_ENTRY_BYTES,
    table: MSIX_ENTRY,
  }));
}
