// DEVICE_FEATURE over a socket and in process: no feature is offered, and that is answered properly.

import { afterAll, afterEach, beforeAll, describe, it } from 'vitest';
import { Command } from '../../protocol/vfio-user/commands.ts';
import { DeviceFeature, FeatureFlag } from '../../protocol/vfio-user/messages.ts';
import { expectErrno } from './backend.ts';
import type { TestBackend } from './test-backend.ts';
import { TRANSPORTS } from './transports.ts';

const MIGRATION = 1;

describe.each(TRANSPORTS)('DEVICE_FEATURE over $way', ({ start }) => {
  let backend: TestBackend;
  beforeAll(async () => {
    backend = await start();
  });
  afterEach(() => backend.disconnect());
  afterAll(() => backend.stop());

  async function expectAnswer(argsz: number, flags: number, code: string): Promise<void> {
    const client = await backend.connect();
    const body = DeviceFeature.encode({ argsz, flags }, new Uint8Array(16));
    await expectErrno(client.call(Command.deviceFeature, body), code);
  }

  it.each([
    ['probing migration', FeatureFlag.probe | FeatureFlag.get | MIGRATION],
    ['getting migration', FeatureFlag.get | MIGRATION],
    ['setting migration state', FeatureFlag.set | 2],
    ['starting dirty tracking', FeatureFlag.set | 6],
    ['an unknown feature', FeatureFlag.get | 0xffff],
  ])('answers %s with ENOTTY, as VFIO does for what is not offered', async (_, flags) => {
    await expectAnswer(16, flags, 'ENOTTY');
  });

  it.each([
    ['no action', MIGRATION],
    ['unknown flags', FeatureFlag.get | 0x8000_0000],
  ])('answers %s with EINVAL', async (_, flags) => {
    await expectAnswer(16, flags >>> 0, 'EINVAL');
  });

  it('answers argsz 7 with EINVAL', async () => {
    await expectAnswer(7, FeatureFlag.get | MIGRATION, 'EINVAL');
  });

  it.each([0, 7])('answers a body of %i bytes with EINVAL', async (length) => {
    const client = await backend.connect();
    await expectErrno(client.call(Command.deviceFeature, new Uint8Array(length)), 'EINVAL');
  });
});
