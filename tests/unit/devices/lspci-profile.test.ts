import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { decodeProfile, encodeProfile } from '../../../backend/devices/device-profile.ts';
import { describeLspci } from '../../../backend/devices/lspci-profile.ts';
import { parseLspci } from '../../../backend/devices/lspci-text.ts';
import {
  walkCapabilities,
  walkExtendedCapabilities,
} from '../../../backend/pci/capability-chain.ts';
import { CapabilityId, ExtendedCapabilityId } from '../../../backend/pci/spec/capability-ids.ts';
import { loadUint } from '../../../protocol/little-endian.ts';

/** As they were made: file, name, source, VF BARs where the text has no VF. */
const CARDS: readonly [string, string, string, ReadonlyMap<number, number>?][] = [
  [
    'intel-82576',
    'Intel 82576',
    'lspci -vvv -xxxx in a guest of QEMU 11.1, device igb, driver igb',
  ],
  [
    'qemu-nvme',
    'QEMU nvme',
    'lspci -vvv -xxxx in a guest of QEMU 11.1, device nvme with sriov_max_vfs=7, driver nvme',
  ],
  [
    'samsung-pm174x',
    'Samsung PM174X',
    'lspci -vvv -xxxx of the card, in pciutils: tests/cap-phy32, commit 2898e33f435b; the VF is made after the PF',
    new Map([[0, 32 << 10]]),
  ],
];

const textOf = (file: string): string => readFileSync(`tests/fixtures/lspci/${file}.txt`, 'utf8');

/** The igb's text as lines, changed: `change` gets it and gives another. */
function reasonFor(change: (lines: string[]) => string[]): string {
  try {
    describeLspci(parseLspci(change(textOf('intel-82576').split('\n')).join('\n')));
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('the text was taken');
}

it.each(CARDS)(
  'the shipped profile of %s is what its text says',
  (file, name, source, vfBarSizes) => {
    const card = describeLspci(parseLspci(textOf(file)), { name, vfBarSizes });
    const made = encodeProfile(card, source);
    expect(readFileSync(`examples/profiles/${file}.json`, 'utf8')).toBe(made);
    expect(decodeProfile(made, file).card?.name).toBe(name);
  },
);

describe('a card from its text', () => {
  const card = describeLspci(parseLspci(textOf('intel-82576')));

  it('has the IDs, VFs and BARs of the card', () => {
    expect(card).toMatchObject({ name: '01:00.0', totalVfs: 8, vfDeviceId: 0x10ca });
    expect(loadUint(card.pf.config, 0, 4)).toBe(0x10c9_8086);
    expect(loadUint(card.vf.config, 0, 4)).toBe(0x10ca_8086);
    const memory32 = { kind: 'memory32', prefetchable: false };
    expect(card.pf.bars).toEqual([
      { index: 0, size: 128 << 10, ...memory32 },
      { index: 1, size: 128 << 10, ...memory32 },
      { index: 2, size: 32, kind: 'io', prefetchable: false },
      { index: 3, size: 16 << 10, kind: 'memory64', prefetchable: false },
    ]);
    expect(card.vfBars.map(({ index, size }) => [index, size])).toEqual([
      [0, 16 << 10],
      [3, 16 << 10],
    ]);
    expect([card.pf.irqs[2]!.count, card.vf.irqs[2]!.count]).toEqual([10, 3]);
  });

  it('is as after a reset: no address, no enable bit', () => {
    expect(loadUint(card.pf.config, 0x04, 2)).toBe(0);
    expect(loadUint(card.pf.config, 0x10, 4)).toBe(0);
    expect(loadUint(card.pf.config, 0x72, 2)).toBe(9);
    expect(loadUint(card.pf.config, 0x160 + 0x08, 2)).toBe(0);
    expect(loadUint(card.pf.config, 0x160 + 0x10, 2)).toBe(0);
  });

  it('has no MSI message of a driver’s left, as long as its registers are', () => {
    // 64 bits and masks: Message Control, address, upper address, data, masks, pending bits.
    const rows = ['50: 05 70 f1 01 38 00 e0 fe 01 00 00 00 42 00 00 00', '60: 07 00 00 00 02'];
    const text = textOf('intel-82576').replace(/^([56]0): .*$/gm, (row) => {
      const set = rows.find((each) => each.startsWith(row.slice(0, 3))) ?? row;
      return set + row.slice(set.length);
    });
    const { config } = describeLspci(parseLspci(text)).pf;
    expect(loadUint(config, 0x50, 4)).toBe(0x0180_7005);
    expect([...config.subarray(0x54, 0x68)]).toEqual(Array(0x14).fill(0));
  });
});

describe('a card whose text has no VF', () => {
  const card = describeLspci(parseLspci(textOf('samsung-pm174x')), {
    vfBarSizes: new Map([[0, 32 << 10]]),
  });

  it('has VFs with the IDs and BARs that the PF names, and the capabilities that each VF has', () => {
    expect(card).toMatchObject({ totalVfs: 64, vfDeviceId: 0xa826 });
    expect(loadUint(card.vf.config, 0, 4)).toBe(0xa826_144d);
    expect(card.vfBars).toEqual([
      { index: 0, size: 32 << 10, kind: 'memory64', prefetchable: false },
    ]);
    const { pciExpress, msix } = CapabilityId;
    expect(walkCapabilities(card.vf.config).map(({ id }) => id)).toEqual([pciExpress, msix]);
    expect(walkExtendedCapabilities(card.vf.config).map(({ id }) => id)).toEqual([
      ExtendedCapabilityId.alternativeRoutingId,
    ]);
    expect(loadUint(card.vf.config, 0x3c, 2)).toBe(0);
  });

  it('is refused where nobody says how large they are, or names one that is not there', () => {
    const functions = parseLspci(textOf('samsung-pm174x'));
    expect(() => describeLspci(functions)).toThrow('the text has no VF of 2e:00.0');
    const vfBarSizes = new Map([[2, 4096]]);
    expect(() => describeLspci(functions, { vfBarSizes })).toThrow('2e:00.0 has no VF BAR 2');
  });
});

describe('a text that will not do is told with its line and the reason:', () => {
  const rows = textOf('intel-82576').split('\n');
  const firstRow = rows.findIndex((row) => row.startsWith('00: '));
  const vfAt = rows.findIndex((row) => row.startsWith('01:10.0'));
  const lastOfVf = rows.findLastIndex((row) => row.startsWith('ff0: '));

  it.each<[string, (lines: string[]) => string[], string]>([
    ['an empty one', () => [], 'line 1: no function has an SR-IOV capability'],
    [
      'one cut off',
      (lines) => lines.slice(0, lastOfVf),
      `line ${vfAt + 1}: 01:10.0 has 4080 bytes of config space, not 256 or 4096`,
    ],
    [
      'one without its VF',
      (lines) => lines.slice(0, vfAt),
      'line 1: the text has no VF of 01:00.0',
    ],
    [
      'one without bytes',
      (lines) => lines.filter((row) => !/^[0-9a-f]+: /.test(row)),
      'line 1: 01:00.0 has no bytes',
    ],
    ['bytes of nobody', (lines) => lines.slice(firstRow), 'line 1: no function is named before it'],
    [
      'a row that is none',
      (lines) => lines.map((row, at) => (at === firstRow ? '00: 86 8x' : row)),
      `line ${firstRow + 1}: it is no row of 16 bytes`,
    ],
    [
      'a row that is missing',
      (lines) => lines.filter((_, at) => at !== firstRow + 1),
      `line ${firstRow + 2}: offset 20 comes where 10 is to come`,
    ],
    [
      'a region without a size',
      (lines) => lines.map((row) => row.replace('[size=32]', '')),
      'line 10: the region has no size, or one that is no power of two',
    ],
    [
      'a region of a strange size',
      (lines) => lines.map((row) => row.replace('[size=32]', '[size=33]')),
      'line 10: the region has no size, or one that is no power of two',
    ],
    [
      'a region that its register knows nothing of',
      (lines) => lines.map((row) => row.replace('I/O ports at', 'Memory at')),
      'line 1: region 2 of 01:00.0 is another kind of BAR than its register says',
    ],
    [
      'a region twice',
      (lines) => lines.flatMap((row) => (row.startsWith('\tRegion 2: I/O') ? [row, row] : [row])),
      'line 1: regions of 01:00.0: BAR 2 (io) overlaps BAR 2',
    ],
    [
      'an MSI-X table in no region',
      (lines) => lines.filter((row) => !row.startsWith('\tRegion 3: Memory at fe44')),
      'line 1: the MSI-X table of 01:00.0 is in no region of it',
    ],
    [
      'a VF without capabilities',
      (lines) =>
        lines.map((row, at) => (at > vfAt ? row.replace(/^(30: .{11}) a0/, '$1 00') : row)),
      `line ${vfAt + 1}: config space of 01:10.0 has no PCI Express capability`,
    ],
  ])('%s', (_, change, reason) => {
    expect(reasonFor(change)).toContain(reason);
  });

  it('one that is too long', () => {
    expect(() => parseLspci(' '.repeat(5 << 20))).toThrow('longer than 4 MiB');
  });
});
