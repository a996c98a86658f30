// A namespace in a file: whose file it may be, how it is cut, and when what was written is on the disk.
import { chmodSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Extent } from '../../../../backend/devices/nvme/device.ts';
import { keptStorage, openNamespaces } from '../../../../backend/devices/nvme/namespaces.ts';
import { AdminOpcode, IoOpcode } from '../../../../backend/devices/nvme/spec/commands.ts';
import { FeatureId } from '../../../../backend/devices/nvme/spec/features.ts';
import { CONTROLLER, ShutdownStatus } from '../../../../backend/devices/nvme/spec/registers.ts';
import { Status } from '../../../../backend/devices/nvme/spec/status.ts';
import { fieldOf } from '../../../../backend/pci/registers.ts';
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

  it('that is split leaves nothing for a size of namespaces in RAM', () => {
    const options = { namespace: `${join(folder, 'any')},split`, namespaceSize: 4096 };
    expect(() => openNamespaces(options, 1)).toThrow('--namespace-size is of namespaces in RAM');
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

  const writeZeroes = { opcode: IoOpcode.writeZeroes, namespaceId: 1 };

  it('so does Write Zeroes', () => {
    driver.put(1, { ...writeZeroes, dwords: [0, 0, FORCE_UNIT_ACCESS] });
    driver.ring(1);
    device.clock.elapse(1);
    expect(driver.take(1)).toEqual([]);
    device.syncs.shift()!(true);
    expect(driver.take(1)).toMatchObject([{ status: Status.success }]);
  });

  it('so does whatever writes while the volatile write cache is off', () => {
    const cache = { opcode: AdminOpcode.setFeatures, dwords: [FeatureId.volatileWriteCache] };
    expect(driver.admin(cache).status).toBe(Status.success);
    for (const entry of [write(0), writeZeroes]) {
      driver.put(1, entry);
      driver.ring(1);
      device.clock.elapse(1);
      expect(driver.take(1)).toEqual([]);
      device.syncs.shift()!(true);
      expect(driver.take(1)).toMatchObject([{ status: Status.success }]);
    }
    expect(driver.admin({ ...cache, dwords: [FeatureId.volatileWriteCache, 1] }).status).toBe(0);
    expect(driver.command(1, write(0)).status).toBe(Status.success);
  });

  it('a shutdown is complete when it is there, and forgotten by a reset', () => {
    const enabled = driver.get('configuration');
    const shutdownStatus = () => fieldOf(CONTROLLER.status, 'shutdownStatus', driver.get('status'));
    driver.set('configuration', enabled | (1 << 14));
    expect(shutdownStatus()).toBe(ShutdownStatus.occurring);
    device.syncs.shift()!(true);
    expect(shutdownStatus()).toBe(ShutdownStatus.complete);
    driver.set('configuration', enabled | (1 << 14));
    driver.function.reset(() => {});
    device.syncs.shift()!(true);
    expect(driver.get('status')).toBe(0);
  });

  it('those who ask while one sync is under way are answered by the next one', () => {
    for (let flushes = 0; flushes < 4; flushes++) {
      driver.put(1, flush);
    }
    driver.ring(1);
    expect(device.syncs).toHaveLength(1);
    device.syncs.shift()!(true);
    expect([driver.take(1).length, device.syncs.length]).toEqual([1, 1]);
    device.syncs.shift()!(true);
    expect([driver.take(1).length, device.syncs.length]).toEqual([3, 0]);
  });

  it('no more commands wait for it than there is room for, however many there are', () => {
    let taken = 0;
    for (let flushes = 0; flushes < 1000; flushes++) {
      const identifier = driver.put(1, flush);
      driver.ring(1);
      const abort = { opcode: AdminOpcode.abort, dwords: [(identifier << 16) | 1] };
      if (driver.admin(abort).result !== 0) {
        break;
      }
      taken += driver.take(1).length;
    }
    expect(taken).toBe(256);
    device.syncs.shift()!(true);
    device.syncs.shift()!(true);
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
