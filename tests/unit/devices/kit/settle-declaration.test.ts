import { expect, it } from 'vitest';
import { checkDeclaration } from '../../../../backend/devices/kit/check-declaration.ts';
import {
  type DeviceDeclaration,
  memoryBar,
  msixTable,
  registers,
  trapped,
} from '../../../../backend/devices/kit/declaration.ts';
import { describeDevice } from '../../../../backend/devices/kit/describe.ts';
import { settled } from '../../../../backend/devices/kit/settle-declaration.ts';
import { msixPlaces } from '../../../../backend/pci/msix-places.ts';
import { reg32 } from '../../../../backend/pci/registers.ts';

const TABLE = { one: reg32(0, 'rw') };

class Half {
  readonly bars = [memoryBar(0, 4096, [registers(0, TABLE), trapped(8, 8)])];
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  create(): object {
    return { made: this.#name };
  }
}

class Card {
  readonly name = 'card';
  readonly vendorId = 1;
  readonly deviceId = 2;
  readonly vfDeviceId = 3;
  readonly classCode = 0;
  readonly pf = new Half('pf');
  readonly vf = new Half('vf');
  #asked = 0;

  /** Another each time. */
  get totalVfs(): number {
    return 10 ** this.#asked++;
  }

  share(): string {
    return `shared by ${this.name}`;
  }
}

it('a card may be an object of a class: nothing of it is lost when it is spread', () => {
  const card = settled(new Card()) as DeviceDeclaration<string>;
  const { share, pf } = { ...card, pf: { ...card.pf } };
  expect(checkDeclaration(card)).toBeUndefined();
  expect([share?.(), pf.create({} as never, '')]).toEqual(['shared by card', { made: 'pf' }]);
  expect(card.pf.bars[0]!.parts[0]).toMatchObject({ table: TABLE });
  expect((card.pf.bars[0]!.parts[0] as { table: object }).table).toBe(TABLE);
});

it('a property that gives another value each time is asked once', () => {
  const card = settled(new Card()) as DeviceDeclaration<string>;
  expect([card.totalVfs, card.totalVfs, { ...card }.totalVfs]).toEqual([1, 1, 1]);
});

it.each<[string, unknown, string]>([
  ['a property misspelt', { ...new Card(), totalVFs: 1 }, 'totalVFs'],
  [
    'a part misspelt',
    { ...new Card(), totalVfs: 1, pf: { ...new Half('pf'), Bars: 1 } },
    'pf.Bars',
  ],
  ['a hole among BARs', { ...new Card(), totalVfs: 1, pf: { bars: new Array(1) } }, 'pf.create'],
  ['a promise', Promise.resolve(new Card()), 'default export'],
  ['nothing', undefined, 'default export'],
])('%s is as wrong as it was', (_, value, property) => {
  expect(checkDeclaration(settled(value))?.property).toBe(property);
});

it('what a description has of a table can go to another thread, whatever else is in the table', () => {
  const table = new Proxy({ one: { ...reg32(0, 'rw'), note: () => {} } }, {});
  const shape = { bars: [memoryBar(0, 4096, [registers(0, table)])], create: () => ({}) };
  const card = settled({ ...new Card(), totalVfs: 1, pf: shape }) as DeviceDeclaration<string>;
  expect(structuredClone(describeDevice(card)).pf.barTables).toMatchObject([{ table: TABLE }]);
});

it('an MSI-X table is where it was declared, up to the last place that there is', () => {
  const at = 2 ** 32 - 64;
  const bars = [memoryBar(2, 2 ** 32, [msixTable(at, at + 32)])];
  const shape = { bars, msixVectors: 2, create: () => ({}) };
  const card = settled({ ...new Card(), totalVfs: 1, pf: shape }) as DeviceDeclaration<string>;
  expect(checkDeclaration(card)).toBeUndefined();
  expect(msixPlaces(describeDevice(card).pf.config)).toMatchObject({
    table: { bar: 2, start: at },
    pendingBits: { bar: 2, start: at + 32 },
  });
});
