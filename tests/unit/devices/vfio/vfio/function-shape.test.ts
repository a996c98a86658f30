import { expect, it } from 'vitest';
import {
  barsOf,
  msixTable,
  withoutArea,
} from '../../../../../backend/devices/vfio/vfio/function-shape.ts';
import { sriovFacts, vfBarsOf } from '../../../../../backend/devices/vfio/vfs/sriov-resources.ts';
import { configSpace, TOTAL_VFS } from '../../../../fakes/vfio-host.ts';

const NO_AREAS = { readable: true, writable: true, mappable: [] };

it('the MSI-X table covers whole pages of its BAR', () => {
  expect(msixTable(configSpace(true))).toEqual({ bar: 3, offset: 0, size: 0x1000 });
});

it('a table in the middle of a page takes that page', () => {
  const config = configSpace(true);
  const view = new DataView(config.buffer);
  view.setUint16(0x72, 0x7ff, true);
  view.setUint32(0x74, 0x2804, true);
  expect(msixTable(config)).toEqual({ bar: 4, offset: 0x2000, size: 0x9000 });
});

it('a function without MSI-X has no table', () => {
  const config = configSpace(true);
  config[0x34] = 0;
  expect(msixTable(config)).toBeUndefined();
});

it.each([
  ['at the start', { offset: 0, size: 0x1000 }, [{ offset: 0x1000, size: 0x3000 }]],
  [
    'in the middle',
    { offset: 0x1000, size: 0x1000 },
    [
      { offset: 0, size: 0x1000 },
      { offset: 0x2000, size: 0x2000 },
    ],
  ],
  ['at the end', { offset: 0x3000, size: 0x1000 }, [{ offset: 0, size: 0x3000 }]],
  ['everywhere', { offset: 0, size: 0x8000 }, []],
  ['beyond', { offset: 0x4000, size: 0x1000 }, [{ offset: 0, size: 0x4000 }]],
])('an area with a hole %s', (_where, hole, rest) => {
  expect(withoutArea([{ offset: 0, size: 0x4000 }], hole)).toEqual(rest);
});

it('BARs take their kind from the registers and their size from VFIO', () => {
  const config = configSpace(false);
  new DataView(config.buffer).setUint32(0x18, 1, true);
  const regions = [
    { index: 0, size: 0x4000, ...NO_AREAS },
    { index: 1, size: 0, ...NO_AREAS },
    { index: 2, size: 0x20, ...NO_AREAS },
    { index: 7, size: 4096, ...NO_AREAS },
  ];
  expect(barsOf(config, regions)).toEqual([
    { index: 0, size: 0x4000, kind: 'memory64', prefetchable: true },
    { index: 2, size: 0x20, kind: 'io', prefetchable: false },
  ]);
});

it('the SR-IOV capability gives TotalVFs and the device ID of VFs', () => {
  expect(sriovFacts(configSpace(true), 'pf')).toEqual({ totalVfs: TOTAL_VFS, vfDeviceId: 0x10ca });
  expect(() => sriovFacts(configSpace(false), 'pf')).toThrow('no SR-IOV capability');
});

it('VF BARs are the window of the PF divided by TotalVFs of the capability', () => {
  const none = { start: 0n, end: 0n, flags: 0 };
  const lines = [...Array.from({ length: 13 }, () => none)];
  lines[7] = { start: 0xfe80_0000n, end: 0xfe81_ffffn, flags: 0x14220c };
  lines[9] = { start: 0xfe90_0000n, end: 0xfe90_7fffn, flags: 0x40200 };
  expect(vfBarsOf(lines, 8, 'pf')).toEqual([
    { index: 0, size: 0x4000, kind: 'memory64', prefetchable: true },
    { index: 2, size: 0x1000, kind: 'memory32', prefetchable: false },
  ]);
});

it('a VF BAR without an address is refused with its fix', () => {
  const lines = Array.from({ length: 13 }, () => ({ start: 0n, end: 0x1ffffn, flags: 0x14220c }));
  expect(() => vfBarsOf(lines, 8, 'pf')).toThrow(/no address range for VF BAR 0; .*realloc/);
});
