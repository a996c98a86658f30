// REGION_WRITE_MULTI over a socket and in process: only for clients that negotiated it.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Command, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { WriteMultiCount, WriteMultiEntry } from '../../protocol/vfio-user/messages.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { expectErrno } from './backend.ts';
import type { TestBackend } from './test-backend.ts';
import { TRANSPORTS } from './transports.ts';

const MEMORY = 0x2000;

function writesOf(...sizes: number[]) {
  return sizes.map((size, i) => ({
    region: RegionIndex.bar0,
    offset: MEMORY + 8 * i,
    bytes: new Uint8Array(size).fill(i + 1),
  }));
}

describe.each(TRANSPORTS)('REGION_WRITE_MULTI over $way', ({ start }) => {
  let backend: TestBackend;
  let client: VfioUserClient;
  beforeAll(async () => {
    backend = await start();
  });
  beforeEach(async () => {
    client = await backend.connect({ capabilities: { write_multiple: true } });
    await client.writeRegion(RegionIndex.bar0, MEMORY, new Uint8Array(64));
  });
  afterEach(() => backend.disconnect());
  afterAll(() => backend.stop());

  it('is granted to a client that asks for it', () => {
    expect(client.agreed.writeMultiple).toBe(true);
  });

  it('carries out all writes and counts them', async () => {
    expect(await client.writeRegionMulti(writesOf(1, 2, 4, 8))).toBe(4);
    const bytes = await client.readRegion(RegionIndex.bar0, MEMORY, 32);
    expect([...bytes]).toEqual(
      [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [2, 2, 0, 0, 0, 0, 0, 0],
        [3, 3, 3, 3, 0, 0, 0, 0],
        [4, 4, 4, 4, 4, 4, 4, 4],
      ].flat(),
    );
  });

  it('accepts no writes at all', async () => {
    expect(await client.writeRegionMulti([])).toBe(0);
  });

  it('answers ENOTSUP to a client that did not negotiate it', async () => {
    client.close();
    client = await backend.connect();
    await expectErrno(client.writeRegionMulti(writesOf(4)), 'ENOTSUP');
  });

  it.each<[string, Uint8Array]>([
    ['an empty body', new Uint8Array(0)],
    ['a count without entries', WriteMultiCount.encode({ count: 1n })],
    ['a count of 2^64-1', WriteMultiCount.encode({ count: 0xffff_ffff_ffff_ffffn })],
    ['a cut entry', WriteMultiCount.encode({ count: 1n }, new Uint8Array(8 + 23))],
    ['more entries than the count', WriteMultiCount.encode({ count: 1n }, new Uint8Array(8 + 48))],
  ])('answers %s with EINVAL', async (_, body) => {
    await expectErrno(client.call(Command.regionWriteMulti, body), 'EINVAL');
  });

  it.each<[string, { region?: number; offset?: bigint; count?: number }]>([
    ['9 bytes', { count: 9 }],
    ['an unknown region', { region: 9 }],
    ['an offset behind the end', { offset: 1n << 40n }],
  ])('answers an entry with %s with EINVAL and serves on', async (_, bad) => {
    const good = { region: RegionIndex.bar0, offset: BigInt(MEMORY), count: 8, data: 0x0101n };
    const body = WriteMultiCount.encode({ count: 2n }, new Uint8Array(8 + 48));
    WriteMultiEntry.encode(good, body, 8);
    WriteMultiEntry.encode({ ...good, ...bad }, body, 8 + 24);
    await expectErrno(client.call(Command.regionWriteMulti, body), 'EINVAL');
    await client.deviceInfo();
  });
});
