// DEVICE_GET_REGION_IO_FDS over a socket and in process: the backend has none to offer.

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Command } from '../../protocol/vfio-user/commands.ts';
import { RegionIoFds } from '../../protocol/vfio-user/messages.ts';
import { expectErrno } from './backend.ts';
import type { TestBackend } from './test-backend.ts';
import { TRANSPORTS } from './transports.ts';

describe.each(TRANSPORTS)('DEVICE_GET_REGION_IO_FDS over $way', ({ start }) => {
  let backend: TestBackend;
  beforeAll(async () => {
    backend = await start();
  });
  afterEach(() => backend.disconnect());
  afterAll(() => backend.stop());

  it.each([0, 7])('answers region %i with no entries', async (index) => {
    const client = await backend.connect();
    const request = RegionIoFds.encode({ argsz: 1024, flags: 0, index, count: 0 });
    const { body, fds } = await client.call(Command.deviceGetRegionIoFds, request);
    expect(RegionIoFds.decode(body)).toEqual({ argsz: 16, flags: 0, index, count: 0 });
    expect(body.length).toBe(16);
    expect(fds).toEqual([]);
  });

  it.each<[string, { argsz?: number; flags?: number; index?: number; count?: number }]>([
    ['an unknown region', { index: 9 }],
    ['flags', { flags: 1 }],
    ['a count', { count: 1 }],
    ['argsz 15', { argsz: 15 }],
  ])('answers %s with EINVAL', async (_, change) => {
    const client = await backend.connect();
    const request = RegionIoFds.encode({ argsz: 16, flags: 0, index: 0, count: 0, ...change });
    await expectErrno(client.call(Command.deviceGetRegionIoFds, request), 'EINVAL');
  });

  it.each([0, 15])('answers a body of %i bytes with EINVAL', async (length) => {
    const client = await backend.connect();
    await expectErrno(client.call(Command.deviceGetRegionIoFds, new Uint8Array(length)), 'EINVAL');
  });
});
