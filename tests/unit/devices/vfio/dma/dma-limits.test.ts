import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import {
  decodeIommuInfo,
  explainRefusedMap,
  explainRefusedMmap,
  readMemlockLimit,
} from '../../../../../backend/devices/vfio/dma/dma-limits.ts';
import { Errno } from '../../../../../protocol/errno.ts';

const LIMITS = {
  pageSizes: 0x4020_1000n,
  iovaRanges: [
    { start: 0n, end: 0xfedf_ffffn },
    { start: 0xfef0_0000n, end: 0xff_ffff_ffffn },
  ],
  entriesLeft: 65_535,
  memlock: 8n << 20n,
};
const window = { address: 0x1_0000_0000n, size: 512n << 20n };

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'proc-'));
  mkdirSync(join(folder, 'self'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function writeProc(limit: string, capabilities: string): void {
  writeFileSync(join(folder, 'self/limits'), `Max locked memory         ${limit} ${limit} bytes\n`);
  writeFileSync(join(folder, 'self/status'), `CapEff:\t${capabilities}\n`);
}

it('the IOMMU tells its pages, its ranges and the mappings that are left', () => {
  const bytes = new Uint8Array(128);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 128, true);
  view.setUint32(4, 3, true);
  view.setBigUint64(8, 0x1000n, true);
  view.setUint32(16, 24, true);
  view.setUint16(24, 1, true);
  view.setUint32(28, 56, true);
  view.setUint32(32, 1, true);
  view.setBigUint64(48, 0xfedf_ffffn, true);
  view.setUint16(56, 3, true);
  view.setUint32(64, 4096, true);
  expect(decodeIommuInfo(bytes, 5n)).toEqual({
    pageSizes: 0x1000n,
    iovaRanges: [{ start: 0n, end: 0xfedf_ffffn }],
    entriesLeft: 4096,
    memlock: 5n,
  });
});

it('a chain of capabilities that points back ends there', () => {
  const bytes = new Uint8Array(64);
  const view = new DataView(bytes.buffer);
  view.setUint32(4, 3, true);
  view.setUint32(16, 24, true);
  view.setUint16(24, 9, true);
  view.setUint32(28, 24, true);
  expect(decodeIommuInfo(bytes, undefined).iovaRanges).toEqual([]);
});

it('the memory that may be locked is read, and root has no limit', () => {
  writeProc('8388608', '0000000000000000');
  expect(readMemlockLimit(folder)).toBe(8n << 20n);
  writeProc('8388608', '000001ffffffffff');
  expect(readMemlockLimit(folder)).toBeUndefined();
  writeProc('unlimited', '0000000000000000');
  expect(readMemlockLimit(folder)).toBeUndefined();
});

it.each([
  ['ENOMEM', window, 'cannot pin 512 MiB at bus address 0x100000000: this process may lock 8 MiB'],
  ['ENOSPC', window, "the kernel's number of mappings is used up"],
  ['EEXIST', window, 'a part of it is mapped already'],
  ['EFAULT', window, 'the file behind it is shorter'],
  ['EPIPE', window, 'the process that maps memory has ended'],
  ['EINVAL', { address: 0x123n, size: 0x1000n }, 'not a multiple of the IOMMU'],
  [
    'EINVAL',
    { address: 0xfee0_0000n, size: 0x1000n },
    'this IOMMU can map 0x0-0xfedfffff, 0xfef00000-0xffffffffff only',
  ],
  ['EINVAL', window, 'the kernel finds it invalid'],
] as const)('%s is explained', (code, of, message) => {
  expect(explainRefusedMap(Errno[code], of, LIMITS).message).toContain(message);
});

it('memory that cannot be mapped into a process is told from that', () => {
  const { message, fix } = explainRefusedMmap(Errno.EACCES, window);
  expect(message).toBe('guest memory at 0x100000000 cannot be mapped here (EACCES)');
  expect(fix).toContain('share=on');
});
