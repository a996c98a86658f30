import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { numVfsFailure } from '../../../../../backend/devices/vfio/vfs/numvfs-failure.ts';
import { startNumVfsWriter } from '../../../../../backend/devices/vfio/vfs/numvfs-writer.ts';
import { Errno } from '../../../../../protocol/errno.ts';
import { processClock } from '../../../../../protocol/unix/process-clock.ts';
import { ManualClock } from '../../../../fakes/manual-clock.ts';
import { BY_A_PROGRAM } from '../../../../patience.ts';

const child = resolve('dist/backend/devices/vfio/vfs/numvfs-writer-child.js');

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'numvfs-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

it('the number is written and read by another process', async () => {
  const path = join(folder, 'sriov_numvfs');
  writeFileSync(path, '0\n');
  const writer = startNumVfsWriter(path, processClock, child);
  expect(await writer.read()).toBe(0);
  expect(await writer.write(3)).toBe(0);
  expect(readFileSync(path, 'utf8')).toBe('3');
  expect(await writer.read()).toBe(3);
  writer.close();
});

it('an errno of the kernel comes back as it is', async () => {
  const writer = startNumVfsWriter(join(folder, 'none', 'sriov_numvfs'), processClock, child);
  expect(await writer.write(1)).toBe(Errno.ENOENT);
  await expect(writer.read()).rejects.toMatchObject({ name: 'HostError', errno: Errno.ENOENT });
  writer.close();
});

it('a read that the kernel blocks is given up and explained', async () => {
  const path = join(folder, 'blocks');
  execFileSync('mkfifo', [path]);
  const clock = new ManualClock();
  const writer = startNumVfsWriter(path, clock, child);
  const reading = expect(writer.read()).rejects.toThrow(
    'VFs are being disabled while somebody holds one',
  );
  await vi.waitFor(() => expect(clock.pending).toBe(1), BY_A_PROGRAM);
  clock.elapse(10_000);
  await reading;
  // The other end of the pipe lets the child go on, and so end.
  writeFileSync(path, '0');
  writer.close();
});

it('a process that is slow to start is no kernel that blocks', async () => {
  const path = join(folder, 'sriov_numvfs');
  writeFileSync(path, '4\n');
  const slow = join(folder, 'slow.mjs');
  const gate = join(folder, 'gate');
  execFileSync('mkfifo', [gate]);
  writeFileSync(
    slow,
    `import { readFileSync } from 'node:fs';
     readFileSync(${JSON.stringify(gate)});
     await import(${JSON.stringify(child)});`,
  );
  const clock = new ManualClock();
  const writer = startNumVfsWriter(path, clock, slow);
  const reading = writer.read();
  // The gate is opened by who waits at it.
  const open = await openFile(gate, 'w');
  clock.elapse(3_600_000);
  await open.close();
  expect(await reading).toBe(4);
  writer.close();
});

it('requests to a process that has ended fail, and do not wait', async () => {
  const endsAtOnce = join(folder, 'ends-at-once.js');
  writeFileSync(endsAtOnce, '');
  const writer = startNumVfsWriter(join(folder, 'sriov_numvfs'), processClock, endsAtOnce);
  expect(await writer.write(1)).toBe(Errno.EPIPE);
  expect(await writer.write(1)).toBe(Errno.EPIPE);
  writer.close();
});

it('a process whose backend was killed ends in silence', async () => {
  const orphan = spawn(process.execPath, [child], { stdio: 'pipe' });
  orphan.stdout.destroy();
  orphan.stdin.end(`${JSON.stringify({ id: 1, path: '/proc/self/stat' })}\n`);
  let errors = '';
  orphan.stderr.on('data', (text) => {
    errors += text;
  });
  const [status] = await once(orphan, 'close');
  expect({ status, errors }).toEqual({ status: 0, errors: '' });
});

const situation = {
  path: '/sys/x/sriov_numvfs',
  pf: '0000:01:00.0',
  totalVfs: 8,
  enableSriov: 'Y',
  driver: 'vfio-pci',
};

it.each([
  ['ENOENT', { driver: undefined }, 'the PF has no driver'],
  ['ENOENT', { enableSriov: 'N' }, 'vfio-pci is loaded with enable_sriov off'],
  ['ENOENT', {}, 'the driver vfio-pci makes no VFs'],
  ['EBUSY', {}, 'VFs are enabled already'],
  ['ERANGE', {}, 'the PF has at most 8'],
  ['ENOMEM', {}, 'not enough address space or bus numbers'],
  ['EACCES', {}, 'no permission'],
  ['EIO', {}, 'the device does not show the VFs'],
  ['ENODEV', {}, 'the function depends on another one'],
  ['EPIPE', {}, 'the process that writes it has ended'],
] as const)('%s of sriov_numvfs is told with cause and fix', (code, change, message) => {
  const error = numVfsFailure(Errno[code], 4, { ...situation, ...change });
  expect(error.message).toContain(`write /sys/x/sriov_numvfs: 4 VFs refused: ${message}`);
  expect(error.fix).not.toBe('');
  expect(error.errno).toBe(Errno[code]);
});
