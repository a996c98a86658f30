// DEVICE_SET_IRQS over the real socket: every form, proven by doorbells that do or do not arrive.

import { writeSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createEventFd } from '../../protocol/unix/eventfd.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { createMemfd } from '../../protocol/unix/memory.ts';
import { Command, IrqIndex } from '../../protocol/vfio-user/commands.ts';
import { IrqSet, IrqSetFlag } from '../../protocol/vfio-user/messages.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { Interrupt } from '../../vmm-glue/client/interrupts.ts';
import { Backend, expectErrno, expectSoon } from './backend.ts';
import { ring, turnOn } from './loopback-device.ts';
import { STRANGE_FILES } from './strange-files.ts';

const VECTORS = 8;
const BIND = IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger;

let backend: Backend;
let client: VfioUserClient;
let interrupts: Interrupt[] = [];

beforeAll(async () => {
  backend = await Backend.start();
});
beforeEach(async () => {
  client = await backend.connect();
  await client.reset();
  await turnOn(client);
});
afterEach(async () => {
  await backend.disconnect();
  for (const each of interrupts.splice(0)) {
    each.close();
  }
});
afterAll(() => backend.stop());

function newInterrupts(count: number): Interrupt[] {
  interrupts = Array.from({ length: count }, () => new Interrupt());
  return interrupts;
}

/** Rings each vector once and gives those that arrived; the reply to a ring comes after its signal. */
async function arrivals(lines: readonly Interrupt[]): Promise<number[]> {
  const before = lines.map((line) => line.drain());
  expect(before.length).toBe(lines.length);
  for (let vector = 0; vector < lines.length; vector += 1) {
    await ring(client, vector);
  }
  return lines.flatMap((line, vector) => (line.drain() > 0n ? [vector] : []));
}

describe('DEVICE_SET_IRQS', () => {
  it('binds eventfds to all vectors, and each doorbell signals its own', async () => {
    const lines = newInterrupts(VECTORS);
    await client.bindInterrupts(IrqIndex.msix, 0, lines);
    await ring(client, 5);
    expect(await lines[5]!.next()).toBe(1n);
    expect(lines.map((line) => Number(line.total))).toEqual([0, 0, 0, 0, 0, 1, 0, 0]);
  });

  it('binds one vector at a time', async () => {
    const lines = newInterrupts(VECTORS);
    await client.bindInterrupts(IrqIndex.msix, 3, [lines[3]!]);
    expect(await arrivals(lines)).toEqual([3]);
  });

  it('enables MSI-X without any eventfd, as QEMU does, and binds later', async () => {
    const lines = newInterrupts(VECTORS);
    await client.setIrqs({ index: IrqIndex.msix, start: 0, count: 1, flags: BIND });
    expect(await arrivals(lines)).toEqual([]);
    await client.bindInterrupts(IrqIndex.msix, 0, [lines[0]!]);
    expect(await arrivals(lines)).toEqual([0]);
  });

  it('takes a range in the middle away and leaves the others', async () => {
    const lines = newInterrupts(VECTORS);
    await client.bindInterrupts(IrqIndex.msix, 0, lines);
    await client.unbindInterrupts(IrqIndex.msix, 2, 3);
    expect(await arrivals(lines)).toEqual([0, 1, 5, 6, 7]);
  });

  it('replaces an eventfd and closes the old one', async () => {
    const [old, replacement] = newInterrupts(2);
    await client.bindInterrupts(IrqIndex.msix, 0, [old!]);
    const before = await backend.quietFdCount();
    await client.bindInterrupts(IrqIndex.msix, 0, [replacement!]);
    await ring(client, 0);
    expect(await replacement!.next()).toBe(1n);
    expect(old!.drain()).toBe(0n);
    await expectSoon(() => backend.quietFdCount(), before);
  });

  it('disables the whole index', async () => {
    const lines = newInterrupts(VECTORS);
    await client.bindInterrupts(IrqIndex.msix, 0, lines);
    await client.disableInterrupts(IrqIndex.msix);
    expect(await arrivals(lines)).toEqual([]);
  });

  it('accepts disabling an index that is not enabled', async () => {
    await client.disableInterrupts(IrqIndex.msix);
    await client.disableInterrupts(IrqIndex.msi);
    await client.disableInterrupts(IrqIndex.intx);
  });

  it('triggers by NONE and by BOOL', async () => {
    const lines = newInterrupts(4);
    await client.bindInterrupts(IrqIndex.msix, 0, lines);
    const trigger = { index: IrqIndex.msix, start: 1, count: 1 };
    await client.setIrqs({
      ...trigger,
      flags: IrqSetFlag.dataNone | IrqSetFlag.actionTrigger,
    });
    await client.setIrqs(
      { ...trigger, start: 0, count: 4, flags: IrqSetFlag.dataBool | IrqSetFlag.actionTrigger },
      Uint8Array.of(0, 0, 1, 1),
    );
    expect(lines.map((line) => Number(line.drain()))).toEqual([0, 1, 1, 1]);
  });

  it.each([
    ['MSI-X', IrqIndex.msix],
    ['REQ', IrqIndex.req],
  ])('answers masking %s, whose IRQ_INFO names no mask, with EINVAL', async (_, index) => {
    const [line] = newInterrupts(1);
    await client.bindInterrupts(index, 0, [line!]);
    const range = { index, start: 0, count: 1 };
    for (const action of [IrqSetFlag.actionMask, IrqSetFlag.actionUnmask]) {
      const request = { ...range, flags: IrqSetFlag.dataNone | action };
      await expectErrno(client.setIrqs(request), 'EINVAL');
    }
    await client.setIrqs({ ...range, flags: IrqSetFlag.dataNone | IrqSetFlag.actionTrigger });
    expect(await line!.next()).toBe(1n);
  });

  it.each<[string, () => number]>([
    ...STRANGE_FILES,
    ['a memfd', () => createMemfd('no-eventfd', 4096)],
  ])('answers %s in place of an eventfd with EINVAL and keeps none of them', async (_, open) => {
    const [line] = newInterrupts(1);
    const fd = open();
    const before = await backend.quietFdCount();
    const request = { index: IrqIndex.msix, start: 0, count: 2, flags: BIND };
    await expectErrno(client.setIrqs(request, undefined, [line!.fd, fd]), 'EINVAL');
    await expectSoon(() => backend.quietFdCount(), before);
    closeFd(fd);
  });

  it('survives DEVICE_RESET with its bindings', async () => {
    const lines = newInterrupts(VECTORS);
    await client.bindInterrupts(IrqIndex.msix, 0, lines);
    await client.reset();
    await turnOn(client);
    expect(await arrivals(lines)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it('is not blocked by an eventfd that is full', async () => {
    const fd = createEventFd();
    const full = new Uint8Array(8);
    new DataView(full.buffer).setBigUint64(0, 0xffff_ffff_ffff_fffen, true);
    writeSync(fd, full);
    await client.setIrqs({ index: IrqIndex.msix, start: 0, count: 1, flags: BIND }, undefined, [
      fd,
    ]);
    await ring(client, 0);
    await client.deviceInfo();
    closeFd(fd);
  });

  it('accepts 16 eventfds in one message, as Cloud Hypervisor sends, where the index has as many', async () => {
    const lines = newInterrupts(VECTORS);
    const request = { index: IrqIndex.msix, start: 0, count: VECTORS, flags: BIND };
    await client.setIrqs(
      request,
      undefined,
      lines.map((line) => line.fd),
    );
    expect(await arrivals(lines)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it.each<[string, Partial<Parameters<VfioUserClient['setIrqs']>[0]>, number, number]>([
    ['an unknown index', { index: 5 }, 1, 0],
    ['an index of 4 billion', { index: 0xffffffff }, 1, 0],
    ['a start beyond the last vector', { start: VECTORS, count: 1 }, 1, 0],
    ['a count beyond the last vector', { count: VECTORS + 1 }, 0, 0],
    ['start and count that overflow 32 bits', { start: 0xffffffff, count: 2 }, 0, 0],
    ['no data flag', { flags: IrqSetFlag.actionTrigger }, 0, 0],
    ['no action flag', { flags: IrqSetFlag.dataNone }, 0, 0],
    [
      'two data flags',
      { flags: IrqSetFlag.dataNone | IrqSetFlag.dataBool | IrqSetFlag.actionTrigger },
      0,
      1,
    ],
    [
      'two action flags',
      { flags: IrqSetFlag.dataNone | IrqSetFlag.actionMask | IrqSetFlag.actionTrigger },
      0,
      0,
    ],
    ['unknown flags', { flags: BIND | 0x1000 }, 1, 0],
    ['one fd for two vectors', { count: 2 }, 1, 0],
    ['two fds for one vector', { count: 1 }, 2, 0],
    ['an fd with NONE', { flags: IrqSetFlag.dataNone | IrqSetFlag.actionTrigger }, 1, 0],
    ['count 0 with eventfds', { count: 0 }, 0, 0],
    [
      'fewer booleans than vectors',
      { count: 4, flags: IrqSetFlag.dataBool | IrqSetFlag.actionTrigger },
      0,
      3,
    ],
  ])('answers %s with EINVAL and keeps no fd', async (_, change, fdCount, bools) => {
    const fds = newInterrupts(fdCount).map((line) => line.fd);
    const before = await backend.quietFdCount();
    const request = { index: IrqIndex.msix, start: 0, count: 1, flags: BIND, ...change };
    await expectErrno(client.setIrqs(request, new Uint8Array(bools), fds), 'EINVAL');
    await expectSoon(() => backend.quietFdCount(), before);
  });

  it.each([0, 19])('answers a body of %i bytes with EINVAL', async (length) => {
    await expectErrno(client.call(Command.deviceSetIrqs, new Uint8Array(length)), 'EINVAL');
  });

  it.each([0, 19])('answers argsz %i, less than the fixed part, with EINVAL', async (argsz) => {
    const flags = IrqSetFlag.dataNone | IrqSetFlag.actionTrigger;
    const body = IrqSet.encode({ argsz, flags, index: IrqIndex.msix, start: 0, count: 0 });
    await expectErrno(client.call(Command.deviceSetIrqs, body), 'EINVAL');
  });

  it('closes all eventfds when the client goes', async () => {
    const before = await backend.quietFdCount();
    await client.bindInterrupts(IrqIndex.msix, 0, newInterrupts(VECTORS));
    await expectSoon(() => backend.quietFdCount(), before + VECTORS);
    client.close();
    client = await backend.connect();
    await client.deviceInfo();
    await expectSoon(() => backend.quietFdCount(), before);
  });
});
