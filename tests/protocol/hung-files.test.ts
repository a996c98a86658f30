// A VMM hands over files that never answer, not even a close, or answer a close with an error: nobody else may suffer by it.

import { close } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { closeFd } from '../../protocol/unix/libc.ts';
import { Command, IrqIndex } from '../../protocol/vfio-user/commands.ts';
import { IrqSetFlag } from '../../protocol/vfio-user/messages.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { HungFileSystem } from '../fakes/hung-file-system.ts';
import { Backend, expectErrno, expectSoon } from './backend.ts';
import { statusOf } from './hotplug-guest.ts';

const files = await HungFileSystem.mount();

describe.skipIf(files === undefined)('a file that never answers', () => {
  let backend: Backend;
  let client: VfioUserClient;
  let fd: number;
  beforeAll(async () => {
    backend = await Backend.start();
    client = await backend.connect();
    fd = files!.open();
  });
  afterAll(async () => {
    // First of all: neither this process nor the backend could end with such a file in its hands.
    await files?.end();
    // Whether that says that the file is gone depends on who else waited for it.
    await new Promise((resolve) => close(fd, resolve));
    expect(await backend.stop()).toBe(0);
  });

  // Before the others: what never answers keeps those that are closed behind it.
  it.each(['EIO', 'EINTR'] as const)(
    'but to a close, by %s, is closed all the same',
    async (error) => {
      const failing = files!.openFailing(error);
      const before = await backend.quietFdCount();
      await client.call(Command.deviceReset, new Uint8Array(0), [failing, failing]);
      await expectErrno(client.mapDma({ address: 0n, size: 4096n, fd: failing }), 'EINVAL');
      await expectSoon(() => backend.fdCount(), before);
      closeFd(failing);
      expect(() => closeFd(failing)).toThrow('EBADF');
    },
  );

  it('as memory is refused', async () => {
    await expectErrno(client.mapDma({ address: 0n, size: 4096n, fd }), 'EINVAL');
    expect((await statusOf(backend)).phase).toBe('disabled');
  });

  it('as an eventfd is refused', async () => {
    const flags = IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger;
    const request = { index: IrqIndex.msix, start: 0, count: 1, flags };
    await expectErrno(client.setIrqs(request, undefined, [fd]), 'EINVAL');
    expect((await statusOf(backend)).phase).toBe('disabled');
  });

  it('that nobody asked for, ever so often, keeps nobody waiting', async () => {
    for (let i = 0; i < 10; i++) {
      await client.call(Command.deviceReset, new Uint8Array(0), [fd, fd, fd]);
    }
    expect((await statusOf(backend)).phase).toBe('disabled');
  });

  it('with more of them than a message may carry ends its connection alone', async () => {
    const peer = backend.raw();
    peer.send(Command.deviceReset, new Uint8Array(0), { fds: new Array<number>(65).fill(fd) });
    await expectSoon(() => peer.isClosed, true);
    expect((await statusOf(backend)).phase).toBe('disabled');
  });
});
