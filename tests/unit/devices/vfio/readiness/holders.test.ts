import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { describeHolder } from '../../../../../backend/devices/vfio/readiness/holders.ts';

const DEVICE = 'anon_inode:[vfio-device]';

let proc: string;
beforeEach(() => {
  proc = mkdtempSync(join(tmpdir(), 'proc-'));
  writeFileSync(join(proc, 'version'), 'Linux');
});
afterEach(() => rmSync(proc, { recursive: true }));

function addProcess(pid: number, name: string, files: string[], maps = ''): void {
  mkdirSync(join(proc, `${pid}/fd`), { recursive: true });
  writeFileSync(join(proc, `${pid}/comm`), `${name}\n`);
  writeFileSync(join(proc, `${pid}/maps`), maps);
  for (const [fd, target] of files.entries()) {
    symlinkSync(target, join(proc, `${pid}/fd/${fd}`));
  }
}

it('the process that has the group open is named', () => {
  addProcess(41, 'other', ['/dev/vfio/6', DEVICE]);
  addProcess(42, 'qemu-system-x86', ['/dev/null', '/dev/vfio/5']);
  expect(describeHolder('5', proc, 1)).toBe('pid 42 (qemu-system-x86)');
});

it('a process with a device open is a candidate where no one has the group open', () => {
  addProcess(1, 'ourselves', [DEVICE]);
  addProcess(42, 'qemu-system-x86', [DEVICE]);
  addProcess(43, 'bash', ['/dev/null']);
  expect(describeHolder('5', proc, 1)).toBe('pid 42 (qemu-system-x86)');
});

it('a process that only maps a device is a candidate as well', () => {
  addProcess(42, 'holder', [], `7f00-7f01 r--s 00000000 00:0f 9   ${DEVICE}\n`);
  expect(describeHolder('5', proc, 1)).toBe('pid 42 (holder)');
});

it('several candidates are all named', () => {
  addProcess(42, 'a', [DEVICE]);
  addProcess(43, 'b', [DEVICE]);
  expect(describeHolder('5', proc, 1)).toMatch(/^pid 4[23] \([ab]\) or pid 4[23] \([ab]\)$/);
});

it('our own hold is told as such', () => {
  addProcess(1, 'ourselves', [], DEVICE);
  expect(describeHolder('5', proc, 1)).toBe('this process');
});

it('a holder that cannot be seen is told as such', () => {
  expect(describeHolder('5', proc, 1)).toContain('cannot be seen');
});
