// DEVICE_GET_IRQ_INFO over a socket and in process.

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Command, IrqIndex } from '../../protocol/vfio-user/commands.ts';
import { IrqInfo, IrqInfoFlag } from '../../protocol/vfio-user/messages.ts';
import { expectErrno } from './backend.ts';
import type { TestBackend } from './test-backend.ts';
import { TRANSPORTS } from './transports.ts';

describe.each(TRANSPORTS)('DEVICE_GET_IRQ_INFO over $way', ({ start }) => {
  let backend: TestBackend;
  beforeAll(async () => {
    backend = await start();
  });
  afterEach(() => backend.disconnect());
  afterAll(() => backend.stop());

  it.each([
    ['INTx', IrqIndex.intx, 0],
    ['MSI', IrqIndex.msi, 1],
    ['MSI-X', IrqIndex.msix, 8],
    ['ERR, which QEMU wants for error recovery,', IrqIndex.err, 1],
  ])('shows %s with its number of vectors', async (_, index, count) => {
    const client = await backend.connect();
    const info = await client.irqInfo(index);
    expect(info.count).toBe(count);
  });

  it('says that MSI-X is signalled by eventfds', async () => {
    const client = await backend.connect();
    const { flags } = await client.irqInfo(IrqIndex.msix);
    expect(flags & IrqInfoFlag.eventFd).toBe(IrqInfoFlag.eventFd);
  });

  it('answers with exactly 16 bytes', async () => {
    const client = await backend.connect();
    const request = IrqInfo.encode({ argsz: 64, flags: 0, index: IrqIndex.msix, count: 0 });
    const { body } = await client.call(Command.deviceGetIrqInfo, request);
    expect(body.length).toBe(16);
  });

  it.each([5, 0xffffffff])('answers interrupt index %i with EINVAL', async (index) => {
    const client = await backend.connect();
    await expectErrno(client.irqInfo(index), 'EINVAL');
  });

  it.each([0, 15])('answers argsz %i with EINVAL', async (argsz) => {
    const client = await backend.connect();
    const request = IrqInfo.encode({ argsz, flags: 0, index: 0, count: 0 });
    await expectErrno(client.call(Command.deviceGetIrqInfo, request), 'EINVAL');
  });

  it.each([0, 11, 15])('answers a body of %i bytes with EINVAL', async (length) => {
    const client = await backend.connect();
    await expectErrno(client.call(Command.deviceGetIrqInfo, new Uint8Array(length)), 'EINVAL');
  });
});
