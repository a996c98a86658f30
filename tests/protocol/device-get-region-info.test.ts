// DEVICE_GET_REGION_INFO over the real socket: sizes, the sparse-mmap capability and its fd.

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { closeFd } from '../../protocol/unix/libc.ts';
import { Command, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { RegionFlag, RegionInfo } from '../../protocol/vfio-user/messages.ts';
import { decodeRegionInfo } from '../../protocol/vfio-user/region-info.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { Backend, expectErrno, expectServing, expectSoon } from './backend.ts';

const PAGE = 4096;
const PF_BAR_SIZE = 64 * 1024;

let backend: Backend;
beforeAll(async () => {
  backend = await Backend.start();
});
afterEach(() => backend.disconnect());
afterAll(() => backend.stop());

function ask(client: VfioUserClient, index: number, argsz: number) {
  const request = { argsz, flags: 0, index, capOffset: 0, size: 0n, offset: 0n };
  return client.call(Command.deviceGetRegionInfo, RegionInfo.encode(request));
}

describe('DEVICE_GET_REGION_INFO', () => {
  it('shows 4096 bytes of readable and writable config space', async () => {
    const client = await backend.connect();
    const { info, fd } = await client.regionInfo(RegionIndex.config);
    expect(info).toMatchObject({ size: 4096, flags: RegionFlag.read | RegionFlag.write });
    expect(fd).toBeUndefined();
  });

  it('shows BAR 0 with everything behind its first two pages mappable, and one fd', async () => {
    const client = await backend.connect();
    const { info, fd } = await client.regionInfo(RegionIndex.bar0);
    expect(info.size).toBe(PF_BAR_SIZE);
    expect(info.flags).toBe(RegionFlag.read | RegionFlag.write | RegionFlag.mmap | RegionFlag.caps);
    expect(info.areas).toEqual([{ offset: 2 * PAGE, size: PF_BAR_SIZE - 2 * PAGE }]);
    expect(fd).toBeTypeOf('number');
    closeFd(fd ?? -1);
  });

  it('says how much room the capability needs to a client that asks with 32 bytes, as QEMU does first', async () => {
    const client = await backend.connect();
    const { body, fds } = await ask(client, RegionIndex.bar0, 32);
    fds.forEach(closeFd);
    const info = decodeRegionInfo(body);
    expect(body.length).toBe(32);
    expect(info.argsz).toBeGreaterThan(32);
    // What is not in the reply is not pointed to.
    expect(RegionInfo.decode(body)).toMatchObject({
      flags: RegionFlag.read | RegionFlag.write | RegionFlag.mmap,
      capOffset: 0,
    });
    expect(info.areas).toEqual([]);
  });

  it('answers the second question with as many bytes as argsz says, as Cloud Hypervisor expects', async () => {
    const client = await backend.connect();
    const first = await ask(client, RegionIndex.bar0, 32);
    const { argsz } = RegionInfo.decode(first.body);
    const second = await ask(client, RegionIndex.bar0, argsz);
    [...first.fds, ...second.fds].forEach(closeFd);
    expect(second.body.length).toBe(argsz);
    expect(second.fds.length).toBeLessThanOrEqual(1);
  });

  it.each([
    ['BAR 1, the upper half of BAR 0', RegionIndex.bar1],
    ['BAR 2', RegionIndex.bar2],
    ['BAR 5', RegionIndex.bar5],
    ['the ROM', RegionIndex.rom],
    ['VGA', RegionIndex.vga],
  ])('shows %s with size 0', async (_, index) => {
    const client = await backend.connect();
    const { info } = await client.regionInfo(index);
    expect(info.size).toBe(0);
  });

  it('maps the memory that the server reads and writes by messages', async () => {
    const client = await backend.connect();
    const [area] = await client.mapRegion(RegionIndex.bar0);
    area?.bytes.set([1, 2, 3, 4], 0x10);
    const bytes = await client.readRegion(RegionIndex.bar0, 2 * PAGE + 0x10, 4);
    expect([...bytes]).toEqual([1, 2, 3, 4]);
    await client.writeRegion(RegionIndex.bar0, 2 * PAGE + 0x20, Uint8Array.of(9, 8, 7));
    expect([...(area?.bytes.subarray(0x20, 0x23) ?? [])]).toEqual([9, 8, 7]);
    area?.close();
  });

  it('leaks no fd of its own however often it is asked', async () => {
    await expectServing(backend);
    const client = await backend.connect();
    const before = await backend.quietFdCount();
    for (let i = 0; i < 50; i += 1) {
      const { fd } = await client.regionInfo(RegionIndex.bar0);
      closeFd(fd ?? -1);
    }
    await expectSoon(() => backend.quietFdCount(), before);
  });

  it.each([9, 100, 0xffffffff])('answers region %i with EINVAL', async (index) => {
    const client = await backend.connect();
    await expectErrno(ask(client, index, 32), 'EINVAL');
  });

  it.each([0, 31])('answers argsz %i with EINVAL', async (argsz) => {
    const client = await backend.connect();
    await expectErrno(ask(client, 0, argsz), 'EINVAL');
  });

  it.each([0, 8, 31])('answers a body of %i bytes with EINVAL', async (length) => {
    const client = await backend.connect();
    await expectErrno(client.call(Command.deviceGetRegionInfo, new Uint8Array(length)), 'EINVAL');
  });
});
