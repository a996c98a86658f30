// REGION_READ over a socket and in process: config space at any offset and length, BARs, and bad ranges.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Command, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { RegionAccess } from '../../protocol/vfio-user/messages.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { Register } from '../../vmm-glue/reference-vmm/loopback-registers.ts';
import { expectErrno } from './backend.ts';
import { readU32At } from './loopback-device.ts';
import type { TestBackend } from './test-backend.ts';
import { TRANSPORTS } from './transports.ts';

const PF_BAR_SIZE = 64 * 1024;
const EXTENDED_START = 0x100;

describe.each(TRANSPORTS)('REGION_READ over $way', ({ start }) => {
  let backend: TestBackend;
  let client: VfioUserClient;
  beforeAll(async () => {
    backend = await start();
  });
  beforeEach(async () => {
    client = await backend.connect();
  });
  afterEach(() => backend.disconnect());
  afterAll(() => backend.stop());

  it('reads the PF’s vendor and device ID', async () => {
    expect(await readU32At(client, RegionIndex.config, 0)).toBe(0x0053_1d0f);
  });

  it('reads config space alike in bytes, words, dwords, odd pieces and as a whole', async () => {
    await client.reset();
    const whole = await client.readRegion(RegionIndex.config, 0, 4096);
    for (const length of [1, 2, 3, 4, 7, 64]) {
      const pieces: number[] = [];
      for (let offset = 0; offset < 512; offset += length) {
        pieces.push(...(await client.readRegion(RegionIndex.config, offset, length)));
      }
      expect(pieces.slice(0, 512)).toEqual([...whole.subarray(0, 512)]);
    }
  });

  it('hides extended config space until the first DEVICE_RESET, also from a read of all 4096 bytes', async () => {
    const before = await client.readRegion(RegionIndex.config, 0, 4096);
    expect(before.subarray(EXTENDED_START).every((byte) => byte === 0)).toBe(true);
    expect(before[0]).toBe(0x0f);
    await client.reset();
    const after = await client.readRegion(RegionIndex.config, 0, 4096);
    expect(after.subarray(EXTENDED_START).some((byte) => byte !== 0)).toBe(true);
  });

  it('hides it again from the next client', async () => {
    await client.reset();
    client.close();
    client = await backend.connect();
    expect(await readU32At(client, RegionIndex.config, EXTENDED_START)).toBe(0);
  });

  it('shows extended config space at once to a client that negotiated hot-plug', async () => {
    client.close();
    client = await backend.connect({
      capabilities: { sriov_hotplug: { version: 1, role: 'vmm' } },
    });
    expect(await readU32At(client, RegionIndex.config, EXTENDED_START)).not.toBe(0);
  });

  it('reads the loopback device’s identity in BAR 0', async () => {
    expect(await readU32At(client, RegionIndex.bar0, Register.magic)).toBe(0x52535556);
    expect(await readU32At(client, RegionIndex.bar0, Register.functionNumber)).toBe(0);
  });

  it('reads a whole BAR in one message', async () => {
    const bytes = await client.readRegion(RegionIndex.bar0, 0, PF_BAR_SIZE);
    expect(bytes.length).toBe(PF_BAR_SIZE);
  });

  it('echoes offset, region and count', async () => {
    const access = { offset: 8n, region: RegionIndex.config, count: 4 };
    const { body } = await client.call(Command.regionRead, RegionAccess.encode(access));
    expect(RegionAccess.decode(body)).toEqual(access);
    expect(body.length).toBe(20);
  });

  it('answers a read of 0 bytes with no data', async () => {
    const access = { offset: 0n, region: RegionIndex.config, count: 0 };
    const { body } = await client.call(Command.regionRead, RegionAccess.encode(access));
    expect(body.length).toBe(16);
  });

  it.each<[string, { offset?: bigint; region?: number; count?: number }]>([
    ['a region that does not exist', { region: 9 }],
    ['region 4294967295', { region: 0xffffffff }],
    ['a region of size 0', { region: RegionIndex.bar2 }],
    ['a read that crosses the end', { offset: 4094n }],
    ['an offset behind the end', { offset: 4096n }],
    ['an offset of 2^63', { offset: 1n << 63n }],
    ['an offset that wraps', { offset: 0xffff_ffff_ffff_fffcn, count: 8 }],
    ['a count beyond the region', { count: 4097 }],
    ['a count of 4 billion', { count: 0xffffffff }],
    ['a count beyond the agreed limit', { region: 0, count: 1024 * 1024 + 1 }],
  ])('answers %s with EINVAL', async (_, change) => {
    const access = { offset: 0n, region: RegionIndex.config, count: 4, ...change };
    await expectErrno(client.call(Command.regionRead, RegionAccess.encode(access)), 'EINVAL');
  });

  it.each([0, 1, 4, 15])('answers a body of %i bytes with EINVAL', async (length) => {
    await expectErrno(client.call(Command.regionRead, new Uint8Array(length)), 'EINVAL');
  });

  it('serves as much as it takes itself, whatever the client says that it takes', async () => {
    client.close();
    client = await backend.connect({ capabilities: { max_data_xfer_size: 1000256 } });
    expect(client.agreed.maxDataXferSize).toBe(1 << 20);
    client.close();
    client = await backend.connect({ capabilities: { max_data_xfer_size: 256 } });
    const access = { offset: 0n, region: RegionIndex.config, count: 4096 };
    const { body } = await client.call(Command.regionRead, RegionAccess.encode(access));
    expect(body[16]).toBe(0x0f);
  });
});
