// DMA_MAP over the real socket, proven by the loopback device's copying engine.

import { ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createEventFd } from '../../protocol/unix/eventfd.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { createMemfd } from '../../protocol/unix/memory.ts';
import { Command } from '../../protocol/vfio-user/commands.ts';
import { DmaFlag, DmaMap } from '../../protocol/vfio-user/messages.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { Interrupt } from '../../vmm-glue/client/interrupts.ts';
import { GuestMemory } from '../../vmm-glue/client/memory.ts';
import { Backend, expectErrno, expectSoon } from './backend.ts';
import { copy, DmaStatus, turnOn } from './loopback-device.ts';
import { STRANGE_FILES } from './strange-files.ts';

const PAGE = 4096;
const SIZE = 64 * PAGE;
const ADDRESS = 0x1_0000_0000n;

let backend: Backend;
let client: VfioUserClient;
let memory: GuestMemory;

beforeAll(async () => {
  backend = await Backend.start();
});
beforeEach(async () => {
  client = await backend.connect();
  await client.reset();
  await turnOn(client);
  memory = new GuestMemory(SIZE);
});
afterEach(async () => {
  await backend.disconnect();
  memory.close();
});
afterAll(() => backend.stop());

function mapAll(address = ADDRESS): Promise<void> {
  return client.mapDma({ address, size: BigInt(SIZE), fd: memory.fd });
}

describe('DMA_MAP', () => {
  it('lets the device copy guest memory above 4 GiB', async () => {
    await mapAll();
    memory.bytes.set([1, 2, 3, 4, 5], 100);
    expect(await copy(client, ADDRESS + 100n, ADDRESS + 5000n, 5)).toBe(DmaStatus.done);
    expect([...memory.bytes.subarray(5000, 5005)]).toEqual([1, 2, 3, 4, 5]);
  });

  it('lets one copy cross from a mapping into its neighbour', async () => {
    const half = BigInt(SIZE / 2);
    await client.mapDma({ address: ADDRESS, size: half, fd: memory.fd });
    await client.mapDma({
      address: ADDRESS + half,
      size: half,
      fd: memory.fd,
      fileOffset: half,
    });
    memory.bytes.fill(7, SIZE / 2 - 10, SIZE / 2 + 10);
    const from = ADDRESS + half - 10n;
    expect(await copy(client, from, ADDRESS, 20)).toBe(DmaStatus.done);
    expect(memory.bytes.subarray(0, 20).every((byte) => byte === 7)).toBe(true);
  });

  it('honours the offset into the file', async () => {
    await client.mapDma({
      address: 0n,
      size: BigInt(PAGE),
      fd: memory.fd,
      fileOffset: BigInt(3 * PAGE),
    });
    memory.bytes[3 * PAGE] = 42;
    expect(await copy(client, 0n, 8n, 1)).toBe(DmaStatus.done);
    expect(memory.bytes[3 * PAGE + 8]).toBe(42);
  });

  it('raises the vector that the driver asked for when a copy is done', async () => {
    const line = new Interrupt();
    await client.bindInterrupts(2, 6, [line]);
    await mapAll();
    await copy(client, ADDRESS, ADDRESS + 64n, 16, 6);
    expect(await line.next()).toBe(1n);
    line.close();
  });

  it('reports an address that nothing maps', async () => {
    await mapAll();
    expect(await copy(client, 0n, ADDRESS, 4)).toBe(DmaStatus.notMapped);
    expect(await copy(client, ADDRESS, ADDRESS + BigInt(SIZE) - 2n, 4)).toBe(DmaStatus.notMapped);
  });

  it('does not write where it was only allowed to read, nor read where it may only write', async () => {
    await client.mapDma({ address: 0n, size: BigInt(PAGE), fd: memory.fd, write: false });
    await client.mapDma({
      address: BigInt(PAGE),
      size: BigInt(PAGE),
      fd: memory.fd,
      fileOffset: BigInt(PAGE),
      read: false,
    });
    expect(await copy(client, 0n, BigInt(PAGE), 4)).toBe(DmaStatus.done);
    expect(await copy(client, 0n, 16n, 4)).toBe(DmaStatus.notMapped);
    expect(await copy(client, BigInt(PAGE), BigInt(PAGE) + 16n, 4)).toBe(DmaStatus.notMapped);
  });

  it('refuses to copy while bus mastering is off', async () => {
    await mapAll();
    await client.writeRegion(7, 0x04, Uint8Array.of(0x02, 0x00));
    expect(await copy(client, ADDRESS, ADDRESS + 64n, 4)).toBe(DmaStatus.busMasterOff);
  });

  it.each([0, 1024 * 1024 + 1, 0xffffffff])('reports the bad length %i', async (length) => {
    await mapAll();
    expect(await copy(client, ADDRESS, ADDRESS, length)).toBe(DmaStatus.badLength);
  });

  it('survives a peer that shrinks its file under the mapping', async () => {
    const fd = createMemfd('shrinking', SIZE, { resizable: true });
    await client.mapDma({ address: ADDRESS, size: BigInt(SIZE), fd });
    ftruncateSync(fd, PAGE);
    const beyond = ADDRESS + BigInt(8 * PAGE);
    expect(await copy(client, beyond, ADDRESS, 64)).toBe(DmaStatus.notMapped);
    closeFd(fd);
    await client.deviceInfo();
  });

  it('accepts memory that has no fd, which the device then cannot reach', async () => {
    await client.mapDma({ address: ADDRESS, size: BigInt(PAGE) });
    expect(await copy(client, ADDRESS, ADDRESS + 64n, 4)).toBe(DmaStatus.notMapped);
  });

  it('keeps one fd for one file, however many of its pages are mapped with an fd each', async () => {
    const before = await backend.quietFdCount();
    for (let page = 0; page < 32; page += 1) {
      await client.mapDma({
        address: BigInt(2 * page * PAGE),
        size: BigInt(PAGE),
        fd: memory.fd,
        fileOffset: BigInt(page * PAGE),
      });
    }
    await expectSoon(() => backend.quietFdCount(), before + 1);
  });

  it('lets go of files when the client goes', async () => {
    const before = await backend.quietFdCount();
    await mapAll();
    client.close();
    client = await backend.connect();
    await client.deviceInfo();
    await expectSoon(() => backend.quietFdCount(), before);
  });

  it('takes pipelined maps, as QEMU sends them inside a memory transaction', async () => {
    const maps = Array.from({ length: 16 }, (_, page) =>
      client.mapDma({
        address: ADDRESS + BigInt(page * PAGE),
        size: BigInt(PAGE),
        fd: memory.fd,
        fileOffset: BigInt(page * PAGE),
      }),
    );
    await Promise.all(maps);
    expect(await copy(client, ADDRESS, ADDRESS + BigInt(15 * PAGE), PAGE)).toBe(DmaStatus.done);
  });

  it.each<[string, bigint, bigint]>([
    ['the same range again', ADDRESS, BigInt(SIZE)],
    ['a range inside', ADDRESS + BigInt(PAGE), BigInt(PAGE)],
    ['a range that begins in it', ADDRESS + BigInt(SIZE - PAGE), BigInt(SIZE)],
    ['a range that ends in it', ADDRESS - BigInt(PAGE), BigInt(2 * PAGE)],
    ['a range around it', ADDRESS - BigInt(PAGE), BigInt(4 * SIZE)],
  ])('answers %s with EEXIST and keeps the first mapping', async (_, address, size) => {
    await mapAll();
    await expectErrno(client.mapDma({ address, size, fd: memory.fd }), 'EEXIST');
    expect(await copy(client, ADDRESS, ADDRESS + 64n, 4)).toBe(DmaStatus.done);
  });

  it.each<[string, bigint, bigint]>([
    ['size 0', ADDRESS, 0n],
    ['a range that wraps', 0xffff_ffff_ffff_f000n, BigInt(2 * PAGE)],
    ['an address off a page', ADDRESS + 1n, BigInt(PAGE)],
    ['a size off a page', ADDRESS, 100n],
  ])('answers %s with EINVAL and keeps no fd', async (_, address, size) => {
    const before = await backend.quietFdCount();
    await expectErrno(client.mapDma({ address, size, fd: memory.fd }), 'EINVAL');
    await expectSoon(() => backend.quietFdCount(), before);
  });

  it('answers two fds with EINVAL and keeps neither', async () => {
    const before = await backend.quietFdCount();
    const body = DmaMap.encode({
      argsz: DmaMap.size,
      flags: DmaFlag.read,
      offset: 0n,
      address: ADDRESS,
      size: BigInt(PAGE),
    });
    await expectErrno(client.call(Command.dmaMap, body, [memory.fd, memory.fd]), 'EINVAL');
    await expectSoon(() => backend.quietFdCount(), before);
  });

  it.each<[string, { argsz?: number; flags?: number; offset?: bigint }]>([
    ['argsz 0', { argsz: 0 }],
    ['argsz 31', { argsz: 31 }],
    ['flags that allow nothing', { flags: 0 }],
    ['unknown flags', { flags: 0x103 }],
    ['an offset off a page', { offset: 1n }],
    ['an offset beyond every file', { offset: 0xffff_ffff_ffff_f000n }],
  ])('answers %s with EINVAL', async (_, change) => {
    const body = DmaMap.encode({
      argsz: DmaMap.size,
      flags: DmaFlag.read | DmaFlag.write,
      offset: 0n,
      address: ADDRESS,
      size: BigInt(PAGE),
      ...change,
    });
    await expectErrno(client.call(Command.dmaMap, body, [memory.fd]), 'EINVAL');
  });

  it.each([0, 1, 8, 31])('answers a body of %i bytes with EINVAL', async (length) => {
    await expectErrno(client.call(Command.dmaMap, new Uint8Array(length), [memory.fd]), 'EINVAL');
  });

  it.each<[string, () => number]>([...STRANGE_FILES, ['an eventfd', createEventFd]])(
    'answers %s in place of memory with EINVAL, says so in its log, and keeps no fd',
    async (_, open) => {
      const fd = open();
      const before = await backend.quietFdCount();
      const mapping = { address: ADDRESS, size: BigInt(PAGE), fd };
      await expectErrno(client.mapDma(mapping), 'EINVAL');
      expect(await copy(client, ADDRESS, ADDRESS + 64n, 4)).toBe(DmaStatus.notMapped);
      await expectSoon(() => backend.quietFdCount(), before);
      expect(backend.log).toContain('guest memory at 0x100000000 is no file in RAM');
      closeFd(fd);
    },
  );

  it.each([
    ['in RAM', '/dev/shm'],
    ['on a disk', dirname(fileURLToPath(import.meta.url))],
  ])('takes a file %s', async (_, folder) => {
    const path = join(mkdtempSync(join(folder, 'vfu-')), 'memory');
    const fd = openSync(path, 'w+');
    rmSync(dirname(path), { recursive: true });
    ftruncateSync(fd, SIZE);
    await client.mapDma({ address: ADDRESS, size: BigInt(SIZE), fd });
    expect(await copy(client, ADDRESS, ADDRESS + 64n, 4)).toBe(DmaStatus.done);
    closeFd(fd);
  });

  it.each([
    ['MMAP', DmaFlag.mmap],
    ['FILE_IO', DmaFlag.fileIo],
  ])('answers the flag %s without a file with EINVAL, and takes it with one', async (_, flag) => {
    const flags = DmaFlag.read | DmaFlag.write | flag;
    const page = BigInt(PAGE);
    const body = DmaMap.encode({ argsz: 32, flags, offset: 0n, address: ADDRESS, size: page });
    await expectErrno(client.call(Command.dmaMap, body), 'EINVAL');
    await client.call(Command.dmaMap, body, [memory.fd]);
  });
});
