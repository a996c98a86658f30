// DEVICE_GET_INFO over a socket and in process.

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Command } from '../../protocol/vfio-user/commands.ts';
import { DeviceInfo, DeviceInfoFlag } from '../../protocol/vfio-user/messages.ts';
import { expectErrno } from './backend.ts';
import type { TestBackend } from './test-backend.ts';
import { TRANSPORTS } from './transports.ts';

describe.each(TRANSPORTS)('DEVICE_GET_INFO over $way', ({ start }) => {
  let backend: TestBackend;
  beforeAll(async () => {
    backend = await start();
  });
  afterEach(() => backend.disconnect());
  afterAll(() => backend.stop());

  it('describes a resettable PCI device with at least the regions and interrupts that QEMU wants', async () => {
    const client = await backend.connect();
    const info = await client.deviceInfo();
    expect(info.flags).toBe(DeviceInfoFlag.reset | DeviceInfoFlag.pci);
    expect(info.numRegions).toBeGreaterThanOrEqual(8);
    expect(info.numRegions).toBeLessThanOrEqual(100);
    expect(info.numIrqs).toBeGreaterThanOrEqual(3);
    expect(info.numIrqs).toBeLessThanOrEqual(50);
  });

  it('answers with exactly 16 bytes, also to an argsz that counts the header as Cloud Hypervisor does', async () => {
    const client = await backend.connect();
    const request = { argsz: 32, flags: 0, numRegions: 0, numIrqs: 0 };
    const { body } = await client.call(Command.deviceGetInfo, DeviceInfo.encode(request));
    expect(body.length).toBe(16);
  });

  it.each([0, 1, 15])('answers a body of %i bytes with EINVAL', async (length) => {
    const client = await backend.connect();
    await expectErrno(client.call(Command.deviceGetInfo, new Uint8Array(length)), 'EINVAL');
  });

  it.each([0, 15])('answers argsz %i with EINVAL', async (argsz) => {
    const client = await backend.connect();
    const request = { argsz, flags: 0, numRegions: 0, numIrqs: 0 };
    await expectErrno(client.call(Command.deviceGetInfo, DeviceInfo.encode(request)), 'EINVAL');
  });
});
