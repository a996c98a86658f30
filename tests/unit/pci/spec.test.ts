// Each capability table, laid out byte by byte as the standard prints it.

import { describe, expect, it } from 'vitest';
import { RegisterBlock } from '../../../backend/pci/register-block.ts';
import type { RegisterTable } from '../../../backend/pci/registers.ts';
import { ACS, ACS_BYTES } from '../../../backend/pci/spec/acs.ts';
import { AER, AER_BYTES } from '../../../backend/pci/spec/aer.ts';
import { ARI, ARI_BYTES } from '../../../backend/pci/spec/ari.ts';
import { ATS, ATS_BYTES } from '../../../backend/pci/spec/ats.ts';
import {
  DEVICE_SERIAL_NUMBER,
  DEVICE_SERIAL_NUMBER_BYTES,
} from '../../../backend/pci/spec/device-serial-number.ts';
import { HEADER, HEADER_BYTES, VF_HEADER } from '../../../backend/pci/spec/header.ts';
import {
  MSI_32,
  MSI_32_MASKED,
  MSI_64,
  MSI_64_MASKED,
  msiBytes,
} from '../../../backend/pci/spec/msi.ts';
import { MSIX, MSIX_BYTES, MSIX_ENTRY, MSIX_ENTRY_BYTES } from '../../../backend/pci/spec/msix.ts';
import { PCI_EXPRESS, PCI_EXPRESS_BYTES, VF_PCI_EXPRESS } from '../../../backend/pci/spec/pcie.ts';
import {
  POWER_MANAGEMENT,
  POWER_MANAGEMENT_BYTES,
} from '../../../backend/pci/spec/power-management.ts';
import { SRIOV, SRIOV_BYTES } from '../../../backend/pci/spec/sriov.ts';

/** What a guest can change: every dword after all-ones were written over a zeroed block, where that is not 0. */
function writableBits(table: RegisterTable, length: number): Record<string, string> {
  const block = RegisterBlock.of(table, { length });
  const found: Record<string, string> = {};
  for (let offset = 0; offset < length; offset++) {
    block.write(offset, 1, 0xff);
  }
  for (let offset = 0; offset + 4 <= length; offset += 4) {
    const value = block.read(offset, 4);
    if (value !== 0) {
      found[`0x${offset.toString(16)}`] = `0x${value.toString(16)}`;
    }
  }
  return found;
}

describe('what a guest can write, dword by dword', () => {
  it.each<[string, RegisterTable, number, Record<string, string>]>([
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
        '0x30': '0xfffff801',
        '0x3c': '0xff',
      },
    ],
    ['a VF’s header: Bus Master Enable alone', VF_HEADER, HEADER_BYTES, { '0x4': '0x4' }],
    ['Power Management', POWER_MANAGEMENT, POWER_MANAGEMENT_BYTES, { '0x4': '0x103' }],
    [
      'PCI Express',
      PCI_EXPRESS,
      PCI_EXPRESS_BYTES,
      { '0x8': '0xf9ff', '0x10': '0x3cb', '0x28': '0x7f5f', '0x30': '0xffbf' },
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
    ['a Device Serial Number: nothing', DEVICE_SERIAL_NUMBER, DEVICE_SERIAL_NUMBER_BYTES, {}],
    ['ACS', ACS, ACS_BYTES, { '0x4': '0x7f0000' }],
    ['ATS', ATS, ATS_BYTES, { '0x4': '0x801f0000' }],
    [
      'AER',
      AER,
      AER_BYTES,
      { '0x8': '0x7fff030', '0xc': '0x7fff030', '0x14': '0xf1c1', '0x18': '0x540' },
    ],
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

/** `offset+bytes name` of every register, in order. */
function layoutOf(table: RegisterTable): string[] {
  return Object.entries(table).map(
    ([name, { offset, bytes }]) => `${offset.toString(16).padStart(2, '0')}+${bytes} ${name}`,
  );
}

describe('where registers lie', () => {
  it('in SR-IOV', () => {
    expect(layoutOf(SRIOV)).toEqual([
      '00+4 header',
      '04+4 capabilities',
      '08+2 control',
      '0a+2 status',
      '0c+2 initialVfs',
      '0e+2 totalVfs',
      '10+2 numVfs',
      '12+1 functionDependencyLink',
      '14+2 firstVfOffset',
      '16+2 vfStride',
      '1a+2 vfDeviceId',
      '1c+4 supportedPageSizes',
      '20+4 systemPageSize',
      '24+4 vfBar0',
      '28+4 vfBar1',
      '2c+4 vfBar2',
      '30+4 vfBar3',
      '34+4 vfBar4',
      '38+4 vfBar5',
      '3c+4 vfMigrationStateArrayOffset',
    ]);
  });

  it('in the header, the same for a PF and a VF', () => {
    expect(layoutOf(HEADER)).toEqual([
      '00+2 vendorId',
      '02+2 deviceId',
      '04+2 command',
      '06+2 status',
      '08+1 revisionId',
      '09+1 programmingInterface',
      '0a+1 subClass',
      '0b+1 baseClass',
      '0c+1 cacheLineSize',
      '0d+1 latencyTimer',
      '0e+1 headerType',
      '0f+1 builtInSelfTest',
      '10+4 bar0',
      '14+4 bar1',
      '18+4 bar2',
      '1c+4 bar3',
      '20+4 bar4',
      '24+4 bar5',
      '28+4 cardbusCisPointer',
      '2c+2 subsystemVendorId',
      '2e+2 subsystemId',
      '30+4 expansionRomBase',
      '34+1 capabilitiesPointer',
      '3c+1 interruptLine',
      '3d+1 interruptPin',
      '3e+1 minimumGrant',
      '3f+1 maximumLatency',
    ]);
    expect(layoutOf(VF_HEADER)).toEqual(layoutOf(HEADER));
  });

  it('in PCI Express, the same for a PF and a VF', () => {
    expect(layoutOf(PCI_EXPRESS)).toEqual([
      '00+1 capabilityId',
      '01+1 nextPointer',
      '02+2 capabilities',
      '04+4 deviceCapabilities',
      '08+2 deviceControl',
      '0a+2 deviceStatus',
      '0c+4 linkCapabilities',
      '10+2 linkControl',
      '12+2 linkStatus',
      '24+4 deviceCapabilities2',
      '28+2 deviceControl2',
      '2a+2 deviceStatus2',
      '2c+4 linkCapabilities2',
      '30+2 linkControl2',
      '32+2 linkStatus2',
    ]);
    expect(layoutOf(VF_PCI_EXPRESS)).toEqual(layoutOf(PCI_EXPRESS));
  });

  it('in AER', () => {
    expect(layoutOf(AER)).toEqual([
      '00+4 header',
      '04+4 uncorrectableErrorStatus',
      '08+4 uncorrectableErrorMask',
      '0c+4 uncorrectableErrorSeverity',
      '10+4 correctableErrorStatus',
      '14+4 correctableErrorMask',
      '18+4 capabilitiesControl',
      '1c+4 headerLog0',
      '20+4 headerLog1',
      '24+4 headerLog2',
      '28+4 headerLog3',
      '38+4 tlpPrefixLog0',
      '3c+4 tlpPrefixLog1',
      '40+4 tlpPrefixLog2',
      '44+4 tlpPrefixLog3',
    ]);
  });

  it('in MSI-X and ARI', () => {
    expect(layoutOf(MSIX).slice(2)).toEqual([
      '02+2 messageControl',
      '04+4 table',
      '08+4 pendingBitArray',
    ]);
    expect(layoutOf(ARI)).toEqual(['00+4 header', '04+2 capability', '06+2 control']);
  });
});

it('AER’s error status is cleared by writing 1', () => {
  const aer = RegisterBlock.of(AER, {
    length: AER_BYTES,
    reset: { uncorrectableErrorStatus: 0xffff_ffff, correctableErrorStatus: 0xffff_ffff },
  });
  aer.write(AER.uncorrectableErrorStatus.offset, 4, 0xffff_ffff);
  aer.write(AER.correctableErrorStatus.offset, 4, 0xffff_ffff);
  expect(aer.get('uncorrectableErrorStatus')).toBe(0xf800_0fcf);
  expect(aer.get('correctableErrorStatus')).toBe(0xffff_0e3e);
});

it('errors in Status and Device Status are cleared by writing 1', () => {
  const header = RegisterBlock.of(HEADER, { length: HEADER_BYTES, reset: { status: 0xf918 } });
  header.write(HEADER.status.offset, 2, 0xffff);
  expect(header.get('status')).toBe(0x18);
  const pcie = RegisterBlock.of(PCI_EXPRESS, {
    length: PCI_EXPRESS_BYTES,
    reset: { deviceStatus: 0x3f },
  });
  pcie.write(PCI_EXPRESS.deviceStatus.offset, 2, 0xffff);
  expect(pcie.get('deviceStatus')).toBe(0x30);
});

it.each<[string, RegisterTable, number, number]>([
  ['32-bit', MSI_32, 0x000, 0x0a],
  ['64-bit', MSI_64, 0x080, 0x0e],
  ['32-bit with masking', MSI_32_MASKED, 0x100, 0x14],
  ['64-bit with masking', MSI_64_MASKED, 0x180, 0x18],
])('the %s MSI layout ends where its Message Control says', (_, table, messageControl, length) => {
  const ends = Object.values(table).map(({ offset, bytes }) => offset + bytes);
  expect(Math.max(...ends)).toBe(length);
  expect(msiBytes(messageControl)).toBe(length);
});

it('the table offset of MSI-X counts in 8 bytes', () => {
  const msix = RegisterBlock.of(MSIX, { length: MSIX_BYTES, reset: { table: 0x2003 } });
  expect(msix.field('table', 'offset') * 8).toBe(0x2000);
  expect(msix.field('table', 'barIndicator')).toBe(3);
});
