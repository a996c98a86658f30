import { describe, expect, it } from 'vitest';
import { RegisterBlock } from '../../../backend/pci/register-block.ts';
import { RegisterLayout } from '../../../backend/pci/register-layout.ts';
import {
  bit,
  bits,
  fieldOf,
  maskOf,
  type RegisterTable,
  readOnly,
  reg8,
  reg16,
  reg32,
  registerIn,
  registerValue,
} from '../../../backend/pci/registers.ts';

const TABLE = {
  id: reg16(0x00, 'ro'),
  control: reg16(0x02, { enable: bit(0, 'rw'), mode: bits(7, 4, 'rw'), size: bits(11, 8, 'ro') }),
  status: reg8(0x04, { error: bit(0, 'rw1c'), ready: bit(1, 'ro') }),
  events: reg8(0x05, 'rw1c'),
  address: reg32(0x08, 'rw'),
} satisfies RegisterTable;

function block() {
  return RegisterBlock.of(TABLE, {
    length: 0x0c,
    reset: { id: 0x1234, control: 0xf500, status: 0x03, events: 0xff },
  });
}

describe('reads', () => {
  it('give any 1, 2 or 4 bytes, little-endian, across registers', () => {
    const registers = block();
    expect(registers.read(0, 4)).toBe(0xf500_1234);
    expect(registers.read(1, 2)).toBe(0x0012);
    expect(registers.read(3, 1)).toBe(0xf5);
  });

  it('give 0 where no register is', () => {
    expect(block().read(6, 2)).toBe(0);
  });

  it('past the end throw and name the range', () => {
    expect(() => block().read(0x0a, 4)).toThrow('4 bytes at offset 0xa lie outside');
  });

  it('are unsigned', () => {
    const registers = block();
    registers.write(8, 4, 0xffff_ffff);
    expect(registers.read(8, 4)).toBe(0xffff_ffff);
    expect(registers.get('address')).toBe(0xffff_ffff);
  });
});

describe('writes', () => {
  it('keep to the fields that are rw; unnamed bits keep their reset value', () => {
    const registers = block();
    registers.write(2, 2, 0x0aff);
    expect(registers.get('control')).toBe(0xf5f1);
  });

  it('clear rw1c bits written as 1 and only those', () => {
    const registers = block();
    registers.write(4, 2, 0x0f01);
    expect(registers.get('status')).toBe(0x02);
    expect(registers.get('events')).toBe(0xf0);
  });

  it('to ro registers change nothing and tell nothing', () => {
    const registers = block();
    expect(registers.write(0, 2, 0xffff)).toEqual([]);
    expect(registers.get('id')).toBe(0x1234);
  });

  it('tell each register whose writable bits they reached, in order', () => {
    const registers = block();
    expect(registers.write(2, 4, 0x0101_0011)).toEqual([
      { register: 'control', before: 0xf500, after: 0xf511 },
      { register: 'status', before: 0x03, after: 0x02 },
      { register: 'events', before: 0xff, after: 0xfe },
    ]);
  });

  it('are told even where the value stays the same', () => {
    const registers = block();
    registers.write(2, 1, 1);
    expect(registers.write(2, 1, 1)).toEqual([
      { register: 'control', before: 0xf501, after: 0xf501 },
    ]);
  });

  it('to bytes without a writable bit are not told', () => {
    expect(block().write(3, 1, 0xff)).toEqual([]);
  });

  it('of part of a register leave the rest', () => {
    const registers = block();
    registers.write(8, 4, 0x1122_3344);
    registers.write(9, 1, 0xaa);
    registers.write(10, 2, 0xbbcc);
    expect(registers.get('address')).toBe(0xbbcc_aa44);
  });
});

describe('the device', () => {
  it('sets registers and fields without access rules', () => {
    const registers = block();
    registers.set('id', 0xabcd);
    registers.setField('control', 'size', 0xa);
    expect(registers.get('id')).toBe(0xabcd);
    expect(registers.field('control', 'size')).toBe(0xa);
    expect(registers.get('control')).toBe(0xfa00);
  });

  it('cannot set a value that does not fit', () => {
    const registers = block();
    expect(() => registers.set('id', 0x1_0000)).toThrow('register id: 65536 does not fit');
    expect(() => registers.set('id', -1)).toThrow('does not fit');
    expect(() => registers.setField('control', 'mode', 16)).toThrow('control.mode: 16');
  });

  it('narrows what can be written, but never widens it', () => {
    const registers = block();
    registers.setWriteMask('address', 0xffff_0000);
    registers.setWriteMask('id', 0xffff);
    registers.write(8, 4, 0x1234_5678);
    registers.write(0, 2, 0);
    expect(registers.get('address')).toBe(0x1234_0000);
    expect(registers.get('id')).toBe(0x1234);
  });

  it('narrows this block alone, not others of its layout', () => {
    const layout = new RegisterLayout(TABLE, { length: 0x0c, writable: { address: 0xffff_ff00 } });
    const [one, other] = [new RegisterBlock(layout), new RegisterBlock(layout)];
    one.setWriteMask('address', 0xffff_0000);
    one.write(8, 4, 0x1234_5678);
    expect(other.get('address')).toBe(0);
    other.write(8, 4, 0x1234_5678);
    expect(one.get('address')).toBe(0x1234_0000);
    expect(other.get('address')).toBe(0x1234_5600);
    one.reset();
    expect(other.get('address')).toBe(0x1234_5600);
    expect(new RegisterBlock(layout).get('address')).toBe(0);
  });

  it('hears nothing of a write to a register that is locked', () => {
    const registers = block();
    registers.setWriteMask('address', 0);
    expect(registers.write(8, 4, 1)).toEqual([]);
  });

  it('resets every register', () => {
    const registers = block();
    registers.write(2, 2, 0xffff);
    registers.write(4, 2, 0xffff);
    registers.set('id', 0);
    registers.reset();
    expect(registers.read(0, 4)).toBe(0xf500_1234);
    expect(registers.read(4, 2)).toBe(0xff03);
  });
});

describe('a table is refused', () => {
  it('where registers overlap', () => {
    const table = { low: reg32(0, 'rw'), high: reg16(2, 'rw') };
    expect(() => RegisterBlock.of(table, { length: 8 })).toThrow(
      'registers low and high overlap at offset 0x2',
    );
  });

  it('where a register leaves the block', () => {
    expect(() => RegisterBlock.of({ last: reg32(6, 'rw') }, { length: 8 })).toThrow(
      'register last lies outside its block of 8 bytes',
    );
  });

  it('where fields overlap or leave their register', () => {
    expect(() => reg8(0, { a: bits(4, 0, 'rw'), b: bit(4, 'ro') })).toThrow(
      'field b (4:4) overlaps',
    );
    expect(() => reg8(0, { a: bit(8, 'rw') })).toThrow('field a (8:8) lies outside its 8-bit');
  });

  it('where an access is none', () => {
    expect(() => reg32(0, 'wo' as never)).toThrow('access wo: it must be one of ro, rw, rw1c');
    expect(() => reg32(0, { a: bit(0, 'w' as never) })).toThrow('access w: it must be one of');
  });
});

it('names of registers and fields are checked by the compiler', () => {
  const registers = block();
  // @ts-expect-error: no such field
  expect(() => registers.field('control', 'enabled')).toThrow('no field is called control.enabled');
  // @ts-expect-error: no such register
  expect(() => registers.get('contrl')).toThrow('no register is called contrl');
  // @ts-expect-error: a register without fields has no field to name
  expect(() => registers.field('address', 'low')).toThrow('no field is called address.low');
});

describe('what a table says without a block', () => {
  it('masks, values and fields', () => {
    expect(maskOf(TABLE.control, 'enable', 'mode')).toBe(0xf1);
    expect(registerValue(TABLE.control, { enable: 1, size: 9 })).toBe(0x901);
    expect(fieldOf(TABLE.control, 'size', 0x0901)).toBe(9);
    expect(registerIn(Uint8Array.of(0, 0, 0, 0, 0x01, 0x09), 2, TABLE.control)).toBe(0x0901);
  });

  it('a value that does not fit its field throws', () => {
    expect(() => registerValue(TABLE.control, { mode: 16 })).toThrow(
      'field mode: 16 does not fit bits 7:4',
    );
  });

  it('a read-only copy keeps names and places', () => {
    const copy = readOnly(TABLE.control);
    expect(copy).toMatchObject({ offset: 2, bytes: 2, rw: 0, rw1c: 0 });
    expect(copy.fields.mode).toEqual({ high: 7, low: 4, access: 'ro' });
  });
});
