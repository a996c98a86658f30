// A namespace in a file: whose file it may be, how it is cut, and when what was written is on the disk.
import { chmodSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Extent } from '../../../../backend/devices/nvme/device.ts';
import { keptStorage, openNamespaces } from '../../../../backend/devices/nvme/namespaces.ts';
import { AdminOpcode, IoOpcode } from '../../../../backend/devices/nvme/spec/commands.ts';
import { Status } from '../../../../backend/devices/nvme/spec/status.ts';
import { createMemfd } from '../../../../protocol/unix/memory.ts';
import { type NvmeDriver, NvmeUnderTest } from '../../../fakes/nvme-driver.ts';

describe('a file of the user’s', () => {
  let folder: string;
  let file: string;
  let open: Extent[];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'namespace-'));
    file = join(folder, 'disk');
    writeFileSync(file, '');
    truncateSync(file, 10_000);
    open = [];
  });
  afterEach(() => {
    keptStorage(open).close();
    rmSync(folder, { recursive: true, force: true });
  });

  const places = (extents: readonly Extent[]) =>
    extents.map(({ start, bytes, isOnDisk = false }) => [start, bytes, isOnDisk]);

  it('is the PF’s, in whole blocks; the VFs have theirs in RAM', () => {
    open = openNamespaces({ namespace: file, namespaceSize: 4096 }, 2);
    expect(places(open)).toEqual([
      [0, 19 * 512, true],
      [0, 4096, false],
      [0, 4096, false],
    ]);
  });

  it('is split in equal parts', () => {
    open = openNamespaces({ namespace: `${file},split` }, 2);
    expect(places(open)).toEqual([
      [0, 6 * 512, true],
      [6 * 512, 6 * 512, true],
      [12 * 512, 6 * 512, true],
    ]);
  });

  it('is one backend’s at a time', () => {
    open = openNamespaces({ namespace: file }, 1);
    expect(() => openNamespaces({ namespace: `${file},split` }, 1)).toThrow(
      `--namespace=${file}: another backend serves this file`,
    );
    keptStorage(open).close();
    open = openNamespaces({ namespace: file }, 1);
  });

  it('is synced', async () => {
    open = openNamespaces({ namespace: file }, 1);
    await expect(keptStorage(open).sync(-1)).resolves.toBeUndefined();
  });

  it.each([
    ['that is not there', () => rmSync(file), 'ENOENT'],
    ['that is too small', () => truncateSync(file, 1535), 'less than 3 blocks of 512 bytes'],
    ['that nobody may write', () => chmodSync(file, 0o444), 'the file is write-protected'],
  ])('one %s is refused', (_, change, message) => {
    change();
    expect(() => openNamespaces({ namespace: `${file},split` }, 2)).toThrow(message);
  });

  it('is no folder, and no device', () => {
    expect(() => openNamespaces({ namespace: folder }, 1)).toThrow('EISDIR');
    expect(() => openNamespaces({ namespace: '/dev/null' }, 1)).toThrow('not a regular file');
  });
});

describe('what is on a disk', () => {
  const FORCE_UNIT_ACCESS = 1 << 30;
  const flush = { opcode: IoOpcode.flush, namespaceId: 1 };
  let device: NvmeUnderTest;
  let driver: NvmeDriver;

  beforeEach(() => {
    const bytes = 256 << 10;
    device = new NvmeUnderTest({
      namespaces: [0, 1, 2].map((each) => ({
        fd: createMemfd(`disk${each}`, bytes),
        start: 0,
        bytes,
        isOnDisk: true,
      })),
    });
    driver = device.open();
    driver.enable();
    driver.createPair(1);
  });
  afterEach(() => device.close());

  const write = (dword12: number) => ({
    opcode: IoOpcode.write,
    namespaceId: 1,
    prp1: driver.allocate(4096),
    dwords: [0, 0, dword12],
  });

  it('a flush completes when it is there, and others go on meanwhile', () => {
    const flushed = driver.put(1, flush);
    driver.ring(1);
    expect(driver.take(1)).toEqual([]);
    expect(driver.command(1, write(0)).status).toBe(Status.success);
    const before = driver.raised.length;
    device.syncs.shift()!(true);
    expect(driver.take(1)).toMatchObject([{ identifier: flushed, status: Status.success }]);
    expect(driver.raised.length).toBe(before + 1);
  });

  it('so does a write with Force Unit Access', () => {
    driver.put(1, write(FORCE_UNIT_ACCESS));
    driver.ring(1);
    expect(driver.take(1)).toEqual([]);
    device.syncs.shift()!(true);
    expect(driver.take(1)).toMatchObject([{ status: Status.success }]);
  });

  it('a disk that fails is a write fault', () => {
    driver.put(1, flush);
    driver.ring(1);
    device.syncs.shift()!(false);
    expect(driver.take(1)).toMatchObject([{ status: Status.writeFault }]);
  });

  it('a flush that waits can be aborted, and completes once', () => {
    const flushed = driver.put(1, flush);
    driver.ring(1);
    const abort = { opcode: AdminOpcode.abort, dwords: [(flushed << 16) | 1] };
    expect(driver.admin(abort).result).toBe(0);
    expect(driver.take(1)).toMatchObject([{ identifier: flushed, status: Status.abortRequested }]);
    device.syncs.shift()!(true);
    expect(driver.take(1)).toEqual([]);
  });

  it('one whose queue is deleted is told so', () => {
    driver.put(1, flush);
    driver.ring(1);
    driver.admin({ opcode: AdminOpcode.deleteSubmissionQueue, dwords: [1] });
    device.syncs.shift()!(true);
    expect(driver.take(1)).toMatchObject([{ status: Status.abortedByQueueDeletion }]);
  });

  it('one of a controller that was reset never completes', () => {
    driver.put(1, flush);
    driver.ring(1);
    driver.set('configuration', 0);
    const memory = driver.memory.slice();
    device.syncs.shift()!(true);
    expect(Buffer.compare(driver.memory, memory)).toBe(0);
  });
});
