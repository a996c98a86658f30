// DMA_UNMAP over the real socket.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Command } from '../../protocol/vfio-user/commands.ts';
import { DmaUnmap, UnmapFlag } from '../../protocol/vfio-user/messages.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { GuestMemory } from '../../vmm-glue/client/memory.ts';
import { Backend, expectErrno, expectSoon } from './backend.ts';
import { copy, DmaStatus, turnOn } from './loopback-device.ts';

const PAGE = 4096;
const PAGES = 16;
const STEP = BigInt(PAGE);

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
  memory = new GuestMemory(PAGES * PAGE);
  for (let page = 0n; page < PAGES; page += 1n) {
    await client.mapDma({
      address: page * STEP,
      size: STEP,
      fd: memory.fd,
      fileOffset: page * STEP,
    });
  }
});
afterEach(async () => {
  await backend.disconnect();
  memory.close();
});
afterAll(() => backend.stop());

/** The pages that the device can still reach. */
async function reachable(): Promise<number[]> {
  const pages: number[] = [];
  for (let page = 0; page < PAGES; page += 1) {
    const address = BigInt(page) * STEP;
    const status = await copy(client, address, address + 64n, 4);
    pages.push(...(status === DmaStatus.done ? [page] : []));
  }
  return pages;
}

describe('DMA_UNMAP', () => {
  it('removes the mapping that it names', async () => {
    await client.unmapDma(3n * STEP, STEP);
    expect(await reachable()).toEqual([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
  });

  it('removes every mapping inside a range that spans many, as QEMU with a virtual IOMMU asks', async () => {
    await client.unmapDma(0n, 0x8000_0000n);
    expect(await reachable()).toEqual([]);
  });

  it('accepts a range that covers none', async () => {
    await client.unmapDma(0x10_0000_0000n, 0x1000_0000n);
    expect(await reachable()).toHaveLength(PAGES);
  });

  it('removes everything with the flag ALL', async () => {
    await client.unmapAllDma();
    expect(await reachable()).toEqual([]);
  });

  it('closes the file with its last mapping', async () => {
    const before = await backend.quietFdCount();
    await client.unmapDma(0n, 15n * STEP);
    await expectSoon(() => backend.quietFdCount(), before);
    await client.unmapDma(15n * STEP, STEP);
    await expectSoon(() => backend.quietFdCount(), before - 1);
  });

  it('answers with the 24 bytes that it was sent', async () => {
    const request = DmaUnmap.encode({ argsz: 24, flags: 0, address: 0n, size: STEP });
    const { body } = await client.call(Command.dmaUnmap, request);
    expect([...body]).toEqual([...request]);
  });

  it('makes room for a new mapping', async () => {
    await client.unmapDma(0n, 4n * STEP);
    await client.mapDma({ address: 0n, size: 4n * STEP, fd: memory.fd });
    expect(await reachable()).toHaveLength(PAGES);
  });

  it('answers a range that would cut a mapping in two with EINVAL and removes nothing', async () => {
    await client.unmapAllDma();
    await client.mapDma({ address: 0n, size: BigInt(PAGES) * STEP, fd: memory.fd });
    await expectErrno(client.unmapDma(0n, STEP), 'EINVAL');
    await expectErrno(client.unmapDma(STEP, 100n * STEP), 'EINVAL');
    expect(await reachable()).toHaveLength(PAGES);
  });

  it.each<[string, { flags?: number; address?: bigint; size?: bigint }]>([
    ['size 0', { size: 0n }],
    ['a range that wraps', { address: 0xffff_ffff_ffff_f000n, size: 0x2000n }],
    ['ALL with a size', { flags: UnmapFlag.all, size: STEP }],
    ['ALL with an address', { flags: UnmapFlag.all, address: STEP, size: 0n }],
  ])('answers %s with EINVAL', async (_, change) => {
    const body = DmaUnmap.encode({ argsz: 24, flags: 0, address: 0n, size: STEP, ...change });
    await expectErrno(client.call(Command.dmaUnmap, body), 'EINVAL');
    expect(await reachable()).toHaveLength(PAGES);
  });

  it.each([UnmapFlag.getDirtyBitmap, 4])('answers flags %i with ENOTSUP', async (flags) => {
    const body = DmaUnmap.encode({ argsz: 24, flags, address: 0n, size: STEP });
    await expectErrno(client.call(Command.dmaUnmap, body), 'ENOTSUP');
  });

  it('answers argsz 23 with EINVAL', async () => {
    const body = DmaUnmap.encode({ argsz: 23, flags: 0, address: 0n, size: STEP });
    await expectErrno(client.call(Command.dmaUnmap, body), 'EINVAL');
  });

  it.each([0, 23])('answers a body of %i bytes with EINVAL', async (length) => {
    await expectErrno(client.call(Command.dmaUnmap, new Uint8Array(length)), 'EINVAL');
  });
});
