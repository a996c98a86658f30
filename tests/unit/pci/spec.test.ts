// Each capability table, laid out byte by byte as the standard prints it.

import { describe, expect, test } from 'vitest';
import { RegisterBlock, type RegisterTable } from '../../../backend/pci/registers.ts';
import { ARI, ARI_BYTES } from '../../../backend/pci/spec/ari.ts';
import { HEADER, HEADER_BYTES, VF_HEADER } from '../../../backend/pci/spec/header.ts';
import {
  MSI_32,
  MSI_32_MASKED,
  MSI_64,
  MSI_64_MASKED,
  msiBytes,
} from '../../../backend/pci/spec/msi.ts';
import {
  MSIX,
  MSIX_BYTES,
  MSIX_ENTRY,
  MSIX_ENTRY_BYTES,
  pendingBitArrayBytes,
} from '../../../backend/pci/spec/msix.ts';
import { PCI_EXPRESS, PCI_EXPRESS_BYTES, VF_PCI_EXPRESS } from '../../../backend/pci/spec/pcie.ts';
import {
  POWER_MANAGEMENT,
  POWER_MANAGEMENT_BYTES,
} from '../../../backend/pci/spec/power-management.ts';
import { SRIOV, SRIOV_BYTES } from '../../../backend/pci/spec/sriov.ts';

/** What a guest can change: every dword after all-ones were written over a zeroed block, where that is not 0. */
function writableBits(table: RegisterTable, length: number): Record<string, string> {
  const block = new RegisterBlock(table, { length });
  const found: Record<string, string> = {};
  for (let offset = 0; offset < length; offset++) {
    block.write(offset, 1, 0xff);
  }
  for (let offset = 0; offset + 4 <= length; offset += 4) {
    const value = block.read(offset, 4);
    if (value !== 0) found[`0x${offset.toString(16)}`] = `0x${value.toString(16)}`;
  }
  return found;
}

describe('what a guest can write, dword by dword', () => {
  test.each<[string, RegisterTable, number, Record<string, string>]>([
    [
      'a PF’s header',
      HEADER,
      HEADER_BYTES,
      {
        '0x4': '0x547',
        '0xc': '0xff',
        '0x10': '0xffffffff',
        '0x14': '0xffffffff',
        '0x18': '0xffffffff',
        '0x1c': '0xffffffff',
        '0x20': '0xffffffff',
        '0x24': '0xffffffff',
        '0x30': '0xffffffff',
        '0x3c': '0xff',
      },
    ],
    ['a VF’s header: Bus Master Enable alone', VF_HEADER, HEADER_BYTES, { '0x4': '0x4' }],
    ['Power Management', POWER_MANAGEMENT, POWER_MANAGEMENT_BYTES, { '0x4': '0x103' }],
    [
      'PCI Express',
      PCI_EXPRESS,
      PCI_EXPRESS_BYTES,
      { '0x8': '0xf9ff', '0x10': '0xcb', '0x28': '0x1f' },
    ],
    ['a VF’s PCI Express: FLR alone', VF_PCI_EXPRESS, PCI_EXPRESS_BYTES, { '0x8': '0x8000' }],
    ['MSI-X', MSIX, MSIX_BYTES, { '0x0': '0xc0000000' }],
    [
      'an MSI-X table entry',
      MSIX_ENTRY,
      MSIX_ENTRY_BYTES,
      { '0x0': '0xfffffffc', '0x4': '0xffffffff', '0x8': '0xffffffff', '0xc': '0x1' },
    ],
    ['ARI: nothing', ARI, ARI_BYTES, {}],
    [
      'SR-IOV',
      SRIOV,
      SRIOV_BYTES,
      {
        '0x8': '0x19',
        '0x10': '0xffff',
        '0x20': '0xffffffff',
        '0x24': '0xffffffff',
        '0x28': '0xffffffff',
        '0x2c': '0xffffffff',
        '0x30': '0xffffffff',
        '0x34': '0xffffffff',
        '0x38': '0xffffffff',
      },
    ],
  ])('%s', (_, table, length, expected) => {
    expect(writableBits(table, length)).toEqual(expected);
  });
});

test('errors in Status and Device Status are cleared by writing 1', () => {
  const header = new RegisterBlock(HEADER, { length: HEADER_BYTES, reset: { status: 0xf918 } });
  header.write(HEADER.status.offset, 2, 0xffff);
  expect(header.get('status')).toBe(0x18);
  const pcie = new RegisterBlock(PCI_EXPRESS, {
    length: PCI_EXPRESS_BYTES,
    reset: { deviceStatus: 0x3f },
  });
  pcie.write(PCI_EXPRESS.deviceStatus.offset, 2, 0xffff);
  expect(pcie.get('deviceStatus')).toBe(0x30);
});

test.each<[string, RegisterTable, number, number]>([
  ['32-bit', MSI_32, 0x000, 0x0a],
  ['64-bit', MSI_64, 0x080, 0x0e],
  ['32-bit with masking', MSI_32_MASKED, 0x100, 0x14],
  ['64-bit with masking', MSI_64_MASKED, 0x180, 0x18],
])('the %s MSI layout ends where its Message Control says', (_, table, messageControl, length) => {
  const ends = Object.values(table).map(({ offset, bytes }) => offset + bytes);
  expect(Math.max(...ends)).toBe(length);
  expect(msiBytes(messageControl)).toBe(length);
});

test('the table offset of MSI-X counts in 8 bytes', () => {
  const msix = new RegisterBlock(MSIX, { length: MSIX_BYTES, reset: { table: 0x2003 } });
  expect(msix.field('table', 'offset') * 8).toBe(0x2000);
  expect(msix.field('table', 'barIndicator')).toBe(3);
});

test('a Pending Bit Array has whole 8-byte words', () => {
  expect([1, 64, 65, 2048].map(pendingBitArrayBytes)).toEqual([8, 8, 16, 256]);
});
