// REGION_WRITE over a socket and in process.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Command, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { RegionAccess } from '../../protocol/vfio-user/messages.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { Register } from '../../vmm-glue/reference-vmm/loopback-registers.ts';
import { expectErrno } from './backend.ts';
import { readU32At, u32Bytes } from './loopback-device.ts';
import type { TestBackend } from './test-backend.ts';
import { TRANSPORTS } from './transports.ts';

const BAR0 = 0x10;
const COMMAND = 0x04;
const MEMORY = 0x2000;

describe.each(TRANSPORTS)('REGION_WRITE over $way', ({ start }) => {
  let backend: TestBackend;
  let client: VfioUserClient;
  beforeAll(async () => {
    backend = await start();
  });
  beforeEach(async () => {
    client = await backend.connect();
    await client.reset();
  });
  afterEach(() => backend.disconnect());
  afterAll(() => backend.stop());

  it('keeps what is written to the scratch register', async () => {
    await client.writeRegion(RegionIndex.bar0, Register.scratch, u32Bytes(0xdeadbeef));
    expect(await readU32At(client, RegionIndex.bar0, Register.scratch)).toBe(0xdeadbeef);
  });

  it('does not change read-only registers', async () => {
    await client.writeRegion(RegionIndex.bar0, Register.magic, u32Bytes(0));
    await client.writeRegion(RegionIndex.config, 0, u32Bytes(0xffffffff));
    expect(await readU32At(client, RegionIndex.bar0, Register.magic)).toBe(0x52535556);
    expect(await readU32At(client, RegionIndex.config, 0)).toBe(0x0053_1d0f);
  });

  it('sizes BAR 0 as 64 KiB, 64-bit and prefetchable', async () => {
    await client.writeRegion(RegionIndex.config, BAR0, u32Bytes(0xffffffff));
    await client.writeRegion(RegionIndex.config, BAR0 + 4, u32Bytes(0xffffffff));
    expect(await readU32At(client, RegionIndex.config, BAR0)).toBe(0xffff000c);
    expect(await readU32At(client, RegionIndex.config, BAR0 + 4)).toBe(0xffffffff);
  });

  it('takes a byte, a word and 8 bytes at odd places of memory', async () => {
    await client.writeRegion(RegionIndex.bar0, MEMORY + 1, Uint8Array.of(1));
    await client.writeRegion(RegionIndex.bar0, MEMORY + 3, Uint8Array.of(2, 3));
    await client.writeRegion(RegionIndex.bar0, MEMORY + 9, new Uint8Array(8).fill(4));
    const bytes = await client.readRegion(RegionIndex.bar0, MEMORY, 18);
    expect([...bytes]).toEqual([0, 1, 0, 2, 3, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4, 0]);
  });

  it('writes a single byte of Command without touching the other', async () => {
    await client.writeRegion(RegionIndex.config, COMMAND, Uint8Array.of(0x06, 0x04));
    await client.writeRegion(RegionIndex.config, COMMAND, Uint8Array.of(0x02));
    const bytes = await client.readRegion(RegionIndex.config, COMMAND, 2);
    expect([...bytes]).toEqual([0x02, 0x04]);
  });

  it('writes many bytes in one message', async () => {
    const bytes = Uint8Array.from({ length: 40_000 }, (_, i) => i % 251);
    await client.writeRegion(RegionIndex.bar0, MEMORY, bytes);
    expect(await client.readRegion(RegionIndex.bar0, MEMORY, bytes.length)).toEqual(bytes);
  });

  it('carries out posted writes in order', async () => {
    for (let value = 0; value < 100; value += 1) {
      client.postRegionWrite(RegionIndex.bar0, Register.scratch, u32Bytes(value));
    }
    expect(await readU32At(client, RegionIndex.bar0, Register.scratch)).toBe(99);
  });

  it('echoes offset, region and count, without data', async () => {
    const access = { offset: BigInt(Register.scratch), region: RegionIndex.bar0, count: 4 };
    const body = RegionAccess.encode(access, new Uint8Array(20));
    const reply = await client.call(Command.regionWrite, body);
    expect(RegionAccess.decode(reply.body)).toEqual(access);
    expect(reply.body.length).toBe(16);
  });

  it.each<[string, { offset?: bigint; region?: number; count?: number }, number]>([
    ['a region that does not exist', { region: 9 }, 4],
    ['a region of size 0', { region: RegionIndex.bar2 }, 4],
    ['a write that crosses the end', { offset: 4094n }, 4],
    ['an offset of 2^63', { offset: 1n << 63n }, 4],
    ['more data than count says', { count: 4 }, 5],
    ['less data than count says', { count: 4 }, 3],
    ['a count of 4 billion with 4 bytes', { count: 0xffffffff }, 4],
    ['no data', { count: 4 }, 0],
  ])('answers %s with EINVAL and writes nothing', async (_, change, dataBytes) => {
    const access = { offset: 0x04n, region: RegionIndex.config, count: 4, ...change };
    const body = new Uint8Array(RegionAccess.size + dataBytes).fill(0xff);
    RegionAccess.encode(access, body);
    const before = await readU32At(client, RegionIndex.config, COMMAND);
    await expectErrno(client.call(Command.regionWrite, body), 'EINVAL');
    expect(await readU32At(client, RegionIndex.config, COMMAND)).toBe(before);
  });

  it.each([0, 1, 15])('answers a body of %i bytes with EINVAL', async (length) => {
    await expectErrno(client.call(Command.regionWrite, new Uint8Array(length)), 'EINVAL');
  });
});
