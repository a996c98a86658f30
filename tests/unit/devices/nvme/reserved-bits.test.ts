// Every bit and every value that the standard reserves, in registers, entries and features. NVM Express 1.4, "Keywords": a
// recipient need not look at a reserved bit, and this controller does not; a reserved value of a field that has others, or
// one that is not supported, is an error of its own.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AdminOpcode, IoOpcode } from '../../../../backend/devices/nvme/spec/commands.ts';
import { type CONTROLLER, DOORBELLS } from '../../../../backend/devices/nvme/spec/registers.ts';
import { Status } from '../../../../backend/devices/nvme/spec/status.ts';
import { type Entry, type NvmeDriver, NvmeUnderTest } from '../../../fakes/nvme-driver.ts';

const ALL = 0xffff_ffff;
const READY = 1;
const FATAL = 2;
/** Dwords of an entry. Dword 0 besides opcode, FUSE, PSDT and identifier; 2 to 5 are reserved and metadata, which there is none. */
const OF_EVERY_ENTRY = { 0: 0x3c00, 2: ALL, 3: ALL, 4: ALL, 5: ALL };
const PRP_IS_UNUSED = { 6: ALL, 7: ALL, 8: ALL, 9: ALL };

let device: NvmeUnderTest;
let driver: NvmeDriver;

beforeEach(() => {
  device = new NvmeUnderTest();
  driver = device.open();
});
afterEach(() => {
  device.close();
  expect(device.lines.filter((line) => line.startsWith('error'))).toEqual([]);
});

function bitsOf(mask: number): number[] {
  return Array.from({ length: 32 }, (_, bit) => (1 << bit) >>> 0).filter((bit) => mask & bit);
}

/** Each reserved bit alone, by dword; and all at once. */
function eachOf(reserved: Readonly<Record<number, number>>): Record<number, number>[] {
  const alone = Object.entries(reserved).flatMap(([dword, mask]) =>
    bitsOf(mask).map((bit) => ({ [dword]: bit })),
  );
  return [...alone, { ...reserved }];
}

describe('registers', () => {
  it.each<[keyof typeof CONTROLLER, number]>([
    ['configuration', 0x00ff_fff0],
    ['adminQueueAttributes', 0x0fff_0fff],
    ['adminSubmissionLow', 0xffff_f000],
    ['adminSubmissionHigh', ALL],
    ['adminCompletionLow', 0xffff_f000],
    ['adminCompletionHigh', ALL],
  ])('%s keeps the bits that it has, and no reserved one', (register, kept) => {
    driver.set(register, register === 'configuration' ? ALL - 1 : ALL);
    expect(driver.get(register)).toBe(kept);
    driver.set(register, 0);
    expect(driver.get(register)).toBe(0);
  });

  it.each(['capabilitiesLow', 'capabilitiesHigh', 'version', 'status'] as const)(
    '%s is as it was, whatever is written',
    (register) => {
      const before = driver.get(register);
      driver.set(register, ALL);
      driver.set(register, 0);
      expect(driver.get(register)).toBe(before);
    },
  );

  it('that there are not read as zeros, whatever is written', () => {
    for (const offset of [0x18, 0x20, ...Array.from({ length: 1010 }, (_, at) => 0x38 + 4 * at)]) {
      driver.write(offset, ALL);
      const bytes = new Uint8Array(4).fill(0xff);
      driver.function.readRegion(0, offset, bytes);
      expect([offset, ...bytes]).toEqual([offset, 0, 0, 0, 0]);
    }
  });

  it('CC with any reserved bit set besides enables the controller', () => {
    for (const bit of bitsOf(0xff00_000e)) {
      driver.set('configuration', 0);
      driver.forget();
      driver.enable();
      driver.set('configuration', 0);
      driver.set('configuration', (0x0046_0001 | bit) >>> 0);
      expect([bit, driver.get('status')]).toEqual([bit, READY]);
    }
  });

  it.each([
    ['CSS', 4, 7],
    ['MPS', 7, 15],
    ['AMS', 11, 7],
  ])(
    'CC.%s with a value that is reserved, or not supported, is Controller Fatal Status',
    (_, at, most) => {
      const supported: Readonly<Record<string, number>> = { 4: 0, 7: 4, 11: 0 };
      for (let value = 1; value <= most; value++) {
        driver.set('configuration', 0);
        driver.forget();
        driver.enable();
        driver.set('configuration', 0);
        driver.set('configuration', (0x0046_0001 | (value << at)) >>> 0);
        expect([value, driver.get('status')]).toEqual([
          value,
          value <= supported[at]! ? READY : FATAL,
        ]);
      }
    },
  );

  it('with all bits of all of them set the controller fails, and lives again after a reset', () => {
    for (let offset = 0; offset < DOORBELLS; offset += 4) {
      driver.write(offset, ALL);
    }
    expect(driver.get('status') & READY).toBe(0);
    driver.set('configuration', 0);
    expect(driver.enable()).toBe(READY);
  });

  it('of doorbells have a value of 16 bits', () => {
    driver.enable();
    driver.createPair(1);
    driver.put(1, { opcode: IoOpcode.flush, namespaceId: 1 });
    driver.ring(1, 0xffff_0000 + driver.tailOf(1));
    expect(driver.take(1)).toMatchObject([{ status: Status.success }]);
  });
});

describe('entries', () => {
  beforeEach(() => {
    driver.enable();
    driver.createPair(1);
  });

  const FROM_13 = { 13: ALL, 14: ALL, 15: ALL };
  const FROM_12 = { 12: ALL, ...FROM_13 };
  const FROM_11 = { 11: ALL, ...FROM_12 };
  const data = { namespaceId: 1, prp1: 0x20_0000 };

  it.each<[string, number, Entry, Record<number, number>]>([
    [
      'Flush',
      1,
      { opcode: IoOpcode.flush, namespaceId: 1 },
      { ...PRP_IS_UNUSED, 10: ALL, ...FROM_11 },
    ],
    ['Write', 1, { opcode: IoOpcode.write, ...data }, { 12: 0x030f_0000, 13: 0xff00 }],
    ['Read', 1, { opcode: IoOpcode.read, ...data }, { 12: 0x03ff_0000, 13: 0xffff_ff00 }],
    ['Compare', 1, { opcode: IoOpcode.compare, ...data }, { 12: 0x03ff_0000, 13: ALL }],
    [
      'Write Zeroes',
      1,
      { opcode: IoOpcode.writeZeroes, namespaceId: 1 },
      { ...PRP_IS_UNUSED, 12: 0x01ff_0000, 13: ALL },
    ],
    [
      'Dataset Management',
      1,
      { opcode: IoOpcode.datasetManagement, ...data, dwords: [0, 4] },
      { 10: 0xffff_ff00, 11: 0xffff_fff8, ...FROM_12 },
    ],
    [
      'Identify',
      0,
      { opcode: AdminOpcode.identify, prp1: 0x20_0000, dwords: [1] },
      { 10: 0xff00, 11: 0xffff_0000, 12: ALL, 13: ALL, 14: 0xffff_ff80, 15: ALL },
    ],
    [
      'Get Log Page',
      0,
      { opcode: AdminOpcode.getLogPage, prp1: 0x20_0000, dwords: [0x000f_0002] },
      { 10: 0x7000, 14: 0xffff_ff80, 15: ALL },
    ],
    [
      'Abort',
      0,
      { opcode: AdminOpcode.abort, dwords: [0x0099_0001] },
      { ...PRP_IS_UNUSED, ...FROM_11 },
    ],
    [
      'Set Features',
      0,
      { opcode: AdminOpcode.setFeatures, dwords: [6, 1] },
      { 10: 0x7fff_ff00, 11: 0xffff_fffe, 12: ALL, 13: ALL, 14: 0xffff_ff80, 15: ALL },
    ],
    [
      'Get Features',
      0,
      { opcode: AdminOpcode.getFeatures, dwords: [6] },
      { 10: 0xffff_f800, 12: ALL, 13: ALL, 14: 0xffff_ff80, 15: ALL },
    ],
    [
      'Doorbell Buffer Config',
      0,
      { opcode: AdminOpcode.doorbellBufferConfig, prp1: 0x20_0000, prp2: 0x20_1000 },
      { 10: ALL, ...FROM_11 },
    ],
  ])(
    'of %s are carried out with any reserved bit set, and with all',
    (_, queue, entry, reserved) => {
      for (const besides of eachOf({ ...OF_EVERY_ENTRY, ...reserved })) {
        const { status } = driver.command(queue, { ...entry, besides });
        expect([besides, status]).toEqual([besides, Status.success]);
      }
    },
  );

  it('that make and delete queues are carried out likewise', () => {
    const make = { prp1: 0x20_0000, dwords: [0x0007_0002, 1] };
    const steps: [Entry, Record<number, number>][] = [
      [
        { opcode: AdminOpcode.createCompletionQueue, ...make },
        { 11: 0xfffc, ...FROM_12 },
      ],
      [
        {
          opcode: AdminOpcode.createSubmissionQueue,
          prp1: 0x20_1000,
          dwords: [0x0007_0002, 0x0002_0001],
        },
        { 11: 0xfff8, 12: 0xffff_0000, ...FROM_13 },
      ],
      [
        { opcode: AdminOpcode.deleteSubmissionQueue, dwords: [2] },
        { ...PRP_IS_UNUSED, 10: 0xffff_0000, ...FROM_11 },
      ],
      [
        { opcode: AdminOpcode.deleteCompletionQueue, dwords: [2] },
        { ...PRP_IS_UNUSED, 10: 0xffff_0000, ...FROM_11 },
      ],
    ];
    const rounds = Math.max(
      ...steps.map(([, reserved]) => eachOf({ ...OF_EVERY_ENTRY, ...reserved }).length),
    );
    for (let round = 0; round < rounds; round++) {
      for (const [entry, reserved] of steps) {
        const each = eachOf({ ...OF_EVERY_ENTRY, ...reserved });
        const besides = each[round % each.length]!;
        const { status } = driver.admin({ ...entry, besides });
        expect([entry.opcode, besides, status]).toEqual([entry.opcode, besides, Status.success]);
      }
    }
  });

  it('that wait for events wait with any reserved bit set', () => {
    const besides = { ...OF_EVERY_ENTRY, ...PRP_IS_UNUSED, 10: ALL, ...FROM_11 };
    const waiting = driver.put(0, { opcode: AdminOpcode.asynchronousEventRequest, besides });
    driver.ring(0);
    expect(driver.take(0)).toEqual([]);
    driver.write(DOORBELLS + 8 * 9, 1);
    expect(driver.take(0)).toMatchObject([{ identifier: waiting, status: Status.success }]);
  });

  it.each([
    ['FUSE', 0x0300],
    ['PSDT', 0xc000],
  ])('with any value of %s but 0 are refused, on either queue', (_, mask) => {
    const lowest = mask & -mask;
    for (let value = lowest; value <= mask; value += lowest) {
      const besides = { 0: value };
      const answers = [
        driver.admin({ opcode: AdminOpcode.getFeatures, dwords: [1], besides }),
        driver.command(1, { opcode: IoOpcode.flush, namespaceId: 1, besides }),
      ];
      expect(answers.map(({ status }) => status)).toEqual([
        Status.invalidField,
        Status.invalidField,
      ]);
    }
  });

  it.each([
    ['admin', 0, Object.values(AdminOpcode)],
    ['I/O', 1, Object.values(IoOpcode)],
  ])('of all %s opcodes that there are not are refused', (_, queue, known: number[]) => {
    for (let opcode = 0; opcode <= 0xff; opcode++) {
      const isKnown = known.includes(opcode);
      const status = isKnown ? undefined : driver.command(queue, { opcode, namespaceId: 1 }).status;
      expect([opcode, status]).toEqual([opcode, isKnown ? undefined : Status.invalidOpcode]);
    }
  });

  it.each<[string, Entry, Status]>([
    [
      'a PRP whose lowest bits are set',
      { opcode: IoOpcode.read, namespaceId: 1, prp1: 0x20_0003 },
      Status.invalidPrpOffset,
    ],
    [
      'all bits of a PRP',
      { opcode: IoOpcode.read, namespaceId: 1, besides: { 6: ALL, 7: ALL } },
      Status.invalidPrpOffset,
    ],
    [
      'all bits of a PRP that it may have',
      { opcode: IoOpcode.read, namespaceId: 1, besides: { 6: ALL - 4095, 7: ALL } },
      Status.dataTransferError,
    ],
    [
      'all bits of the namespace',
      { opcode: IoOpcode.read, namespaceId: ALL, prp1: 0x20_0000 },
      Status.invalidNamespace,
    ],
    [
      'all bits of the first block',
      { opcode: IoOpcode.read, namespaceId: 1, prp1: 0x20_0000, dwords: [ALL, ALL] },
      Status.lbaOutOfRange,
    ],
    [
      'all bits of the number of blocks',
      { opcode: IoOpcode.read, namespaceId: 1, prp1: 0x20_0000, dwords: [0, 0, ALL] },
      Status.invalidField,
    ],
    [
      'every bit of an entry but the opcode',
      { opcode: IoOpcode.read, besides: everyDword(0xff00) },
      Status.invalidField,
    ],
  ])('with %s are answered by the rule that they break', (_, entry, status) => {
    expect(driver.command(1, entry).status).toBe(status);
  });

  it.each<[string, Entry, Status]>([
    ['CNS', { opcode: AdminOpcode.identify, dwords: [0xff] }, Status.invalidField],
    [
      'Log Page Identifier',
      { opcode: AdminOpcode.getLogPage, dwords: [0xff] },
      Status.invalidLogPage,
    ],
    [
      'ACT',
      { opcode: AdminOpcode.virtualizationManagement, dwords: [0x1_000f] },
      Status.invalidField,
    ],
    [
      'RT',
      { opcode: AdminOpcode.virtualizationManagement, dwords: [0x0701] },
      Status.invalidResourceIdentifier,
    ],
    [
      'Queue Identifier',
      { opcode: AdminOpcode.deleteSubmissionQueue, dwords: [ALL] },
      Status.invalidQueueIdentifier,
    ],
    [
      'page offsets of doorbell buffers',
      { opcode: AdminOpcode.doorbellBufferConfig, besides: PRP_IS_UNUSED },
      Status.invalidField,
    ],
  ])('of the admin queue with all bits of %s are refused', (_, entry, status) => {
    expect(driver.admin(entry).status).toBe(status);
  });
});

describe('features', () => {
  beforeEach(() => void driver.enable());

  /** Error Recovery is the namespace's. */
  const namespaceOf = (id: number) => ((id & 0xff) === 5 ? 1 : 0);
  const set = (id: number, value: number, namespaceId = namespaceOf(id)) =>
    driver.admin({ opcode: AdminOpcode.setFeatures, namespaceId, dwords: [id, value] });
  const get = (id: number, value = 0, namespaceId = namespaceOf(id)) =>
    driver.admin({ opcode: AdminOpcode.getFeatures, namespaceId, dwords: [id, value] });

  it.each([
    ['Arbitration', 0x01, ALL, 0xffff_ff07],
    ['Power Management', 0x02, 0xffff_ffe0, 0xe0],
    ['Temperature Threshold', 0x04, 0xffc0_ffff, 0xffff],
    ['Error Recovery', 0x05, ALL, 0xffff],
    ['Volatile Write Cache', 0x06, ALL, 0x1],
    ['Interrupt Coalescing', 0x08, ALL, 0xffff],
    ['Interrupt Vector Configuration', 0x09, 0xffff_0000, 0x1_0000],
    ['Write Atomicity', 0x0a, ALL, 0x1],
    ['Asynchronous Event Configuration', 0x0b, ALL, 0x7ff],
  ])('%s keeps no reserved bit', (_, id, written, kept) => {
    expect(set(id, written).status).toBe(Status.success);
    expect(get(id)).toMatchObject({ status: Status.success, result: kept });
  });

  it.each([
    ['a power state that there is not', 0x02, 0x1f, Status.invalidField],
    ['a sensor that there is not', 0x04, 0x0001_0000, Status.invalidField],
    ['a reserved sensor', 0x04, 0x0009_0000, Status.invalidField],
    ['a reserved threshold type', 0x04, 0x0020_0000, Status.invalidField],
    ['65,536 queues', 0x07, ALL, Status.invalidField],
    ['a vector that there is not', 0x09, ALL, Status.invalidField],
    ['any feature, to be saved', 0x8000_0006, 1, Status.featureNotSaveable],
  ])('with %s are not set', (_, id, value, status) => {
    expect(set(id, value).status).toBe(status);
  });

  it('that are reserved are neither set nor told', () => {
    for (let id = 0; id <= 0xff; id++) {
      const isKnown = id >= 1 && id <= 0xb && id !== 3;
      expect([id, get(id).status === Status.invalidField]).toEqual([id, !isKnown]);
      expect([id, set(id, 0).status === Status.invalidField]).toEqual([id, !isKnown]);
    }
  });

  it.each([
    ['the controller’s', 0x06, [0, ALL], Status.featureNotNamespaceSpecific],
    [
      'the number of queues, which is the controller’s,',
      0x07,
      [0, ALL],
      Status.featureNotNamespaceSpecific,
    ],
    ['the namespace’s', 0x05, [1, ALL], Status.success],
  ])('%s are set for it, or for all', (_, id, namespaces, ofNamespace) => {
    for (const namespaceId of namespaces) {
      expect(set(id, 0, namespaceId).status).toBe(Status.success);
    }
    expect(set(id, 0, 1).status).toBe(ofNamespace);
    expect(set(id, 0, 2).status).toBe(Status.invalidNamespace);
  });

  it('of the namespace are told of one that there is, and say that they are its own', () => {
    expect([0, 1, 2, ALL].map((namespaceId) => get(5, 0, namespaceId).status)).toEqual([
      Status.invalidNamespace,
      Status.success,
      Status.invalidNamespace,
      Status.invalidNamespace,
    ]);
    expect([get(0x0305).result, get(0x0306).result]).toEqual([6, 4]);
  });

  it('are not told of a reserved selection', () => {
    for (let id = 1; id <= 0xb; id++) {
      for (let select = 4; select <= 7; select++) {
        expect([id, select, get(id | (select << 8)).status]).toEqual([
          id,
          select,
          Status.invalidField,
        ]);
      }
    }
  });

  it('Temperature Threshold has one for too high and one for too low, and "all sensors" is the one that there is', () => {
    const [over, under] = [0, 0x0010_0000];
    expect([get(4, over).result, get(4, under).result]).toEqual([343, under]);
    expect(set(4, 0x001f_0000 | 280).status).toBe(Status.success);
    expect([get(4, over).result, get(4, under).result]).toEqual([343, under | 280]);
    expect(get(4, 0x000f_0000).status).toBe(Status.invalidField);
  });
});

/** All bits of an entry, but those of Dword 0 that are not in `first`. */
function everyDword(first: number): Record<number, number> {
  return Object.fromEntries(
    Array.from({ length: 16 }, (_, dword) => [dword, dword === 0 ? first : ALL]),
  );
}
