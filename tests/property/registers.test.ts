// The register language under any sequence of accesses: width never matters, and access rules always hold.

import fc from 'fast-check';
import { expect, it } from 'vitest';
import { RegisterBlock } from '../../backend/pci/register-block.ts';
import {
  type Access,
  type Field,
  type RegisterTable,
  reg8,
  reg16,
  reg32,
} from '../../backend/pci/registers.ts';

const LENGTH = 32;
const MAKERS = { 1: reg8, 2: reg16, 4: reg32 } as const;

interface Write {
  readonly offset: number;
  readonly length: 1 | 2 | 4;
  readonly value: number;
}

interface Layout {
  readonly table: RegisterTable;
  readonly reset: Record<string, number>;
}

const access = fc.constantFrom<Access>('ro', 'rw', 'rw1c');

/** Fields side by side from bit 0 up, with a gap before each. */
function fieldsOf(bits: number): fc.Arbitrary<Record<string, Field>> {
  const piece = fc.record({ gap: fc.nat(3), width: fc.integer({ min: 1, max: 12 }), access });
  return fc.array(piece, { maxLength: 6 }).map((pieces) => {
    const fields: Record<string, Field> = {};
    let low = 0;
    for (const [index, { gap, width, access: kind }] of pieces.entries()) {
      low += gap;
      if (low + width > bits) {
        break;
      }
      fields[`field${index}`] = { high: low + width - 1, low, access: kind };
      low += width;
    }
    return fields;
  });
}

const registerSpec = fc.constantFrom<1 | 2 | 4>(1, 2, 4).chain((bytes) =>
  fc.record({
    bytes: fc.constant(bytes),
    gap: fc.nat(2),
    spec: fc.oneof(access, fieldsOf(8 * bytes)),
    reset: fc.nat(2 ** (8 * bytes) - 1),
  }),
);

const layout: fc.Arbitrary<Layout> = fc.array(registerSpec, { maxLength: 10 }).map((specs) => {
  const table: Record<string, RegisterTable[string]> = {};
  const reset: Record<string, number> = {};
  let offset = 0;
  for (const [index, { bytes, gap, spec, reset: value }] of specs.entries()) {
    offset += gap;
    if (offset + bytes > LENGTH) {
      break;
    }
    const make = MAKERS[bytes];
    table[`register${index}`] = typeof spec === 'string' ? make(offset, spec) : make(offset, spec);
    reset[`register${index}`] = value;
    offset += bytes;
  }
  return { table, reset };
});

const write: fc.Arbitrary<Write> = fc
  .record({
    at: fc.nat(LENGTH - 1),
    length: fc.constantFrom<1 | 2 | 4>(1, 2, 4),
    value: fc.nat(0xffff_ffff),
  })
  .map(({ at, length, value }) => ({ offset: Math.min(at, LENGTH - length), length, value }));

const writes = fc.array(write, { maxLength: 20 });

function blockOf({ table, reset }: Layout): RegisterBlock<RegisterTable> {
  return RegisterBlock.of(table, { length: LENGTH, reset });
}

function bytesOf(block: RegisterBlock<RegisterTable>): number[] {
  return Array.from({ length: LENGTH }, (_, offset) => block.read(offset, 1));
}

it('any writes leave the same bytes as their single bytes written one by one', () => {
  fc.assert(
    fc.property(layout, writes, (shape, sequence) => {
      const whole = blockOf(shape);
      const split = blockOf(shape);
      for (const { offset, length, value } of sequence) {
        whole.write(offset, length, value);
        for (let lane = 0; lane < length; lane++) {
          split.write(offset + lane, 1, (value >>> (8 * lane)) & 0xff);
        }
      }
      expect(bytesOf(whole)).toEqual(bytesOf(split));
    }),
  );
});

it('any writes tell of the same registers as their single bytes do', () => {
  fc.assert(
    fc.property(layout, write, (shape, { offset, length, value }) => {
      const whole = blockOf(shape).write(offset, length, value);
      const split = blockOf(shape);
      const told = new Set<string>();
      for (let lane = 0; lane < length; lane++) {
        for (const { register } of split.write(offset + lane, 1, (value >>> (8 * lane)) & 0xff)) {
          told.add(register);
        }
      }
      expect(whole.map(({ register }) => register)).toEqual([...told]);
    }),
  );
});

it('bits that are neither rw nor rw1c never change', () => {
  fc.assert(
    fc.property(layout, writes, (shape, sequence) => {
      const block = blockOf(shape);
      for (const { offset, length, value } of sequence) {
        block.write(offset, length, value);
      }
      for (const [name, { rw, rw1c }] of Object.entries(shape.table)) {
        const changed = (block.get(name) ^ shape.reset[name]!) >>> 0;
        expect(changed & ~(rw | rw1c)).toBe(0);
      }
    }),
  );
});

it('rw1c bits are cleared by a written 1, kept by a written 0, and never set', () => {
  fc.assert(
    fc.property(layout, fc.nat(0xffff_ffff), (shape, value) => {
      const block = blockOf(shape);
      for (const [name, { offset, bytes, rw1c }] of Object.entries(shape.table)) {
        const before = block.get(name);
        block.write(offset, bytes, value);
        expect((block.get(name) & rw1c) >>> 0).toBe((before & ~value & rw1c) >>> 0);
      }
    }),
  );
});

it('rw bits read back what was written last', () => {
  fc.assert(
    fc.property(layout, fc.nat(0xffff_ffff), (shape, value) => {
      const block = blockOf(shape);
      for (const [name, { offset, bytes, rw }] of Object.entries(shape.table)) {
        block.write(offset, bytes, value);
        expect((block.get(name) & rw) >>> 0).toBe((value & rw) >>> 0);
      }
    }),
  );
});

it('a change tells the values before and after, and reset undoes every write', () => {
  fc.assert(
    fc.property(layout, writes, (shape, sequence) => {
      const block = blockOf(shape);
      const fresh = bytesOf(block);
      for (const { offset, length, value } of sequence) {
        const before = new Map(Object.keys(shape.table).map((name) => [name, block.get(name)]));
        for (const change of block.write(offset, length, value)) {
          expect(change.before).toBe(before.get(change.register));
          expect(change.after).toBe(block.get(change.register));
        }
      }
      block.reset();
      expect(bytesOf(block)).toEqual(fresh);
    }),
  );
});
