import { describe, expect, it } from 'vitest';
import { checkDeclaration } from '../../../../backend/devices/kit/check-declaration.ts';
import {
  defineDevice,
  memoryBar,
  msixTable,
  ram,
  registers,
  trapped,
} from '../../../../backend/devices/kit/declaration.ts';
import { reg16, reg32 } from '../../../../backend/pci/registers.ts';

const TABLE = { one: reg32(0, 'rw') };
const create = () => ({});

function device(more: object = {}, vf: object = {}) {
  const bars = [
    memoryBar(0, 0x4000, [registers(0, TABLE), msixTable(0x1000), ram(0x2000, 0x2000)]),
  ];
  const shape = { bars, msixVectors: 2, create };
  return {
    ...defineDevice({
      name: 'card',
      vendorId: 1,
      deviceId: 2,
      vfDeviceId: 3,
      classCode: 0x120000,
      totalVfs: 4,
      pf: shape,
      vf: { ...shape, ...vf },
    }),
    ...more,
  };
}

const barsOf = (...parts: Parameters<typeof memoryBar>[2]) => ({
  bars: [memoryBar(0, 0x4000, parts)],
  msixVectors: 0,
});

const barOf = (shape: object, size: unknown = 4096) => ({
  bars: [memoryBar(0, size as number, [], shape)],
  msixVectors: 0,
});
const PART = registers(0, TABLE);

describe('a declaration', () => {
  it('that makes sense is taken', () => {
    expect(checkDeclaration(device())).toBeUndefined();
  });

  it.each<[string, unknown, string]>([
    ['nothing', undefined, 'default export must be what defineDevice({…}) gives'],
    ['no name', device({ name: '' }), 'name must be a word'],
    [
      'a vendor that does not fit',
      device({ vendorId: 0x12345 }),
      'vendorId must be a whole number',
    ],
    ['an ID that says nobody is there', device({ deviceId: 0xffff }), 'deviceId must be'],
    ['a text for a number', device({ classCode: '1' }), 'classCode must be'],
    ['no VFs', device({ totalVfs: 0 }), 'totalVfs must be a whole number from 1 to 255'],
    ['too long a serial number', device({ serialNumber: 1n << 64n }), 'serialNumber must be'],
    ['a share that is none', device({ share: 3 }), 'share must be a function'],
    ['no VF', device({ vf: undefined }), 'vf must be an object with bars and create'],
    ['a pin that no card has', device({}, { interruptPin: 'E' }), 'vf.interruptPin must be A, B,'],
    ['INTx of a VF', device({}, { interruptPin: 'A' }), 'vf.interruptPin must be none: a VF has'],
    ['no create', device({}, { create: undefined }), 'vf.create must be a function'],
    ['no BARs', device({}, { bars: undefined }), 'vf.bars must be an array'],
    [
      'vectors without a table',
      device({}, { bars: [] }),
      'vf.msixVectors must go with one msixTable',
    ],
    ['a table without vectors', device({}, { msixVectors: 0 }), 'vf.msixVectors must go with'],
    ['3 MSI vectors', device({}, { msiVectors: 3 }), 'vf.msiVectors must be 0, 1, 2, 4'],
    ['an odd BAR', device({}, { bars: [memoryBar(0, 100, [])] }), 'vf.bars must fit a function'],
    [
      'an odd BAR that is too small for what is in it',
      device({}, { bars: [memoryBar(0, 4000, [ram(0, 4096)])] }),
      'vf.bars must fit a function',
    ],
    [
      'overlapping parts',
      device({}, barsOf(trapped(0, 8), trapped(4, 8))),
      'vf.bars[0].parts[1] must not overlap',
    ],
    [
      'a part outside',
      device({}, barsOf(trapped(0x3ffc, 8))),
      'vf.bars[0].parts[0] must lie inside',
    ],
    [
      'half a page of RAM',
      device({}, barsOf(ram(0x800, 0x1000))),
      'must begin and end at multiples of 4096',
    ],
    [
      'a part of no kind',
      device({}, barsOf({ kind: 'x' } as never)),
      'vf.bars[0].parts[0].kind must be one of ram, registers, trapped, msix',
    ],
    [
      'too much of its own',
      device({}, { vendorSpecific: new Uint8Array(99) }),
      'vf.vendorSpecific must be a Uint8Array of 61 bytes',
    ],
    ['a name that no file may have', device({ name: 'a'.repeat(65) }), 'name must be a word'],
    ['a promise', Promise.resolve(device()), 'default export must be'],
    ['a property misspelt', device({ totalVFs: 2 }), 'totalVFs must not be there; there are name,'],
    ['another of a function', device({}, { msixVector: 2 }), 'vf.msixVector must not be there'],
    [
      'a width that no BAR has',
      device({}, barOf({ width: 48 })),
      'vf.bars[0].kind must be memory32',
    ],
    ['a size in text', device({}, barOf({}, '4096')), 'vf.bars[0].size must be a whole number'],
    ['a BAR 6', device({}, { bars: [memoryBar(6, 4096, [])] }), 'vf.bars[0].index must be'],
    [
      'prefetchable in words',
      device({}, barOf({ prefetchable: 'no' })),
      'vf.bars[0].prefetchable must be true or false',
    ],
    [
      'memory in I/O space',
      device({ pf: { bars: [{ ...memoryBar(0, 4096, [ram(0, 4096)]), kind: 'io' }], create } }),
      'pf.bars[0].parts[0] must not be memory pages',
    ],
    [
      'AER in words',
      device({}, { advancedErrorReporting: 'yes' }),
      'vf.advancedErrorReporting must',
    ],
    [
      'a card of 16 bytes',
      device({}, { configImage: new Uint8Array(16) }),
      'vf.configImage must be',
    ],
    [
      'no table',
      device({}, barsOf({ ...PART, table: 7 } as never)),
      'parts[0].table must be regist',
    ],
    [
      'registers that overlap',
      device({}, barsOf(registers(0, { a: reg32(0, 'rw'), b: reg16(2, 'rw') }))),
      'vf.bars[0].parts[0].table.b must not overlap a',
    ],
    [
      'a register astride',
      device({}, barsOf(registers(0, { a: reg32(2, 'rw') }))),
      'parts[0].table.a must be at a multiple of its 4 bytes',
    ],
    [
      'a register outside',
      device({}, barsOf({ ...PART, table: { a: reg32(8, 'rw') } } as never)),
      'parts[0].table.a must lie inside its part of 4 bytes',
    ],
    [
      'a register that is none',
      device({}, barsOf({ ...PART, table: { a: 'rw' } } as never)),
      'parts[0].table.a must be what reg8',
    ],
    [
      'a register whose mask is none',
      device({}, barsOf({ ...PART, table: { a: { ...reg32(0, 'rw'), rw: Number.NaN } } } as never)),
      'parts[0].table.a must be what reg8',
    ],
    [
      'a mask that is too wide',
      device({}, barsOf({ ...PART, table: { a: { ...reg16(0, 'rw'), rw1c: 2 ** 16 } } } as never)),
      'parts[0].table.a must be what reg8',
    ],
    [
      'a field that is none',
      device(
        {},
        barsOf({ ...PART, table: { a: { ...reg32(0, 'rw'), fields: { b: null } } } } as never),
      ),
      'parts[0].table.a must be what reg8',
    ],
    [
      'a field beyond its register',
      device(
        {},
        barsOf({
          ...PART,
          table: { a: { ...reg16(0, 'rw'), fields: { b: { high: 16, low: 9, access: 'rw' } } } },
        } as never),
      ),
      'parts[0].table.a must be what reg8',
    ],
    [
      'vectors that MSI-X cannot reach',
      device({}, { bars: [memoryBar(0, 2 ** 34, [msixTable(2 ** 33)])] }),
      'vf.bars[0].parts[0] must begin in the first 4 GiB of its BAR',
    ],
    [
      'names for what is not there',
      device({}, barsOf(trapped(0, 8, { a: reg32(8, 'rw') }))),
      'parts[0].table.a must lie inside',
    ],
    [
      'a reset value of no register',
      device({}, barsOf(registers(0, TABLE, { two: 1 } as never))),
      'parts[0].reset.two must be of a register',
    ],
    [
      'a reset value that does not fit',
      device({}, barsOf(registers(0, TABLE, { one: -1 }))),
      'parts[0].reset.one must be an unsigned number of 32 bits',
    ],
    [
      'one table for two places',
      device({}, barsOf(registers(0, TABLE), registers(8, TABLE))),
      'parts[1].table must not be the table of another part',
    ],
    [
      'a million registers',
      device({}, { bars: [memoryBar(0, 1 << 24, [registers(0, { a: reg32(1 << 21, 'rw') })])] }),
      'parts[0].size must be 1048576 at most',
    ],
  ])('with %s is refused by property and rule', (_, value, message) => {
    const wrong = checkDeclaration(value);
    expect(`${wrong?.property} ${wrong?.rule}`).toContain(message);
  });
});
