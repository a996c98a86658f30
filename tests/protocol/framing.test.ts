// Headers, pieces, order and replies over a socket and in process: what every command has in common.

import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Errno } from '../../protocol/errno.ts';
import { Command, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { encodeFrame, encodeHeaderInto } from '../../protocol/vfio-user/framing.ts';
import { DeviceInfo, HeaderFlag, RegionAccess } from '../../protocol/vfio-user/messages.ts';
import { expectErrno, expectServing } from './backend.ts';
import type { RawPeer } from './raw-peer.ts';
import type { TestBackend } from './test-backend.ts';
import { TRANSPORTS } from './transports.ts';

const GET_INFO = DeviceInfo.encode({ argsz: DeviceInfo.size, flags: 0, numRegions: 0, numIrqs: 0 });
const SCRATCH = 0x0c;

function header(size: number, command: number = Command.deviceGetInfo): Uint8Array {
  const bytes = new Uint8Array(16);
  encodeHeaderInto(bytes, 0, 7, command, size, HeaderFlag.command, 0);
  return bytes;
}

function readScratch(): Uint8Array {
  return RegionAccess.encode({ offset: BigInt(SCRATCH), region: RegionIndex.bar0, count: 4 });
}

function writeScratch(value: number): Uint8Array {
  const body = new Uint8Array(20);
  RegionAccess.encode({ offset: BigInt(SCRATCH), region: RegionIndex.bar0, count: 4 }, body);
  new DataView(body.buffer).setUint32(16, value, true);
  return body;
}

describe.each(TRANSPORTS)('framing over $way', ({ start }) => {
  let backend: TestBackend;
  beforeAll(async () => {
    backend = await start();
  });
  afterEach(() => backend.disconnect());
  afterAll(() => backend.stop());

  async function negotiated(): Promise<RawPeer> {
    const peer = backend.raw();
    await peer.negotiate();
    return peer;
  }

  it('understands a message that arrives byte by byte', async () => {
    const peer = await negotiated();
    for (const byte of encodeFrame({ id: 5, command: Command.deviceGetInfo, flags: 0 }, GET_INFO)) {
      peer.sendBytes(Uint8Array.of(byte));
      await nextTurn();
    }
    expect(await peer.next()).toMatchObject({ id: 5, error: 0 });
  });

  it('understands a hundred messages that arrive at once, and answers them in order', async () => {
    const peer = await negotiated();
    const ids = Array.from({ length: 100 }, (_, i) => i);
    const messages = ids.map((id) =>
      encodeFrame({ id, command: Command.deviceGetInfo, flags: 0 }, GET_INFO),
    );
    peer.sendBytes(Buffer.concat(messages));
    const answered: number[] = [];
    for (const _ of ids) {
      answered.push((await peer.next()).id);
    }
    expect(answered).toEqual(ids);
  });

  it('echoes id and command, and marks replies as such', async () => {
    const peer = await negotiated();
    peer.send(Command.deviceGetInfo, GET_INFO, { id: 0xffff });
    const reply = await peer.next();
    expect(reply).toMatchObject({ id: 0xffff, command: Command.deviceGetInfo });
    expect(reply.flags & HeaderFlag.typeMask).toBe(HeaderFlag.reply);
  });

  it('answers two calls that share an id', async () => {
    const peer = await negotiated();
    peer.send(Command.deviceGetInfo, GET_INFO, { id: 3 });
    peer.send(Command.deviceGetInfo, GET_INFO, { id: 3 });
    expect((await peer.next()).id).toBe(3);
    expect((await peer.next()).id).toBe(3);
  });

  it('carries out a posted write before the read behind it, and does not answer it', async () => {
    const peer = await negotiated();
    peer.send(Command.regionWrite, writeScratch(0xabcd1234), { id: 1, flags: HeaderFlag.noReply });
    peer.send(Command.regionRead, readScratch(), { id: 2 });
    const reply = await peer.next();
    expect(reply.id).toBe(2);
    expect(new DataView(reply.body.buffer).getUint32(16, true)).toBe(0xabcd1234);
    expect(peer.waiting).toBe(0);
  });

  it('does not answer a posted command that fails', async () => {
    const peer = await negotiated();
    peer.send(Command.regionRead, new Uint8Array(3), { id: 1, flags: HeaderFlag.noReply });
    peer.send(Command.deviceGetInfo, GET_INFO, { id: 2 });
    expect((await peer.next()).id).toBe(2);
  });

  it('answers errors with a bare header that has the Error flag and an errno', async () => {
    const peer = await negotiated();
    peer.send(Command.deviceGetInfo, new Uint8Array(4));
    const reply = await peer.next();
    expect(reply.flags).toBe(HeaderFlag.reply | HeaderFlag.error);
    expect(reply.error).toBe(Errno.EINVAL);
    expect(reply.body.length).toBe(0);
  });

  it('drains the body of a command that it refuses', async () => {
    const peer = await negotiated();
    peer.send(999, new Uint8Array(5000), { id: 1 });
    peer.send(Command.deviceGetInfo, GET_INFO, { id: 2 });
    expect((await peer.next()).error).toBe(Errno.ENOSYS);
    expect(await peer.next()).toMatchObject({ id: 2, error: 0 });
  });

  it.each([0, 14, 17, 18, 20, 0x7fff, 0x8001, 0x8002, 0x9000, 0xffff])(
    'answers the unknown command %i with ENOSYS',
    async (command) => {
      const client = await backend.connect();
      await expectErrno(client.call(command, new Uint8Array(24)), 'ENOSYS');
      await client.deviceInfo();
    },
  );

  it.each([Command.dmaRead, Command.dmaWrite])(
    'answers command %i, which only a server sends, with ENOSYS',
    async (command) => {
      const client = await backend.connect();
      await expectErrno(client.call(command, new Uint8Array(16)), 'ENOSYS');
    },
  );

  it.each([0, 1, 15])('answers a message size of %i with EINVAL and closes', async (size) => {
    const peer = await negotiated();
    peer.sendBytes(header(size));
    expect(await peer.next()).toMatchObject({ id: 7, error: Errno.EINVAL });
    expect(await peer.closes()).toBe(true);
    await expectServing(backend);
  });

  it.each([0x10_2000, 64 * 1024 * 1024, 0xffffffff])(
    'answers a message size of %i with EMSGSIZE and closes',
    async (size) => {
      const peer = await negotiated();
      peer.sendBytes(header(size));
      expect(await peer.next()).toMatchObject({ id: 7, error: Errno.EMSGSIZE });
      expect(await peer.closes()).toBe(true);
      await expectServing(backend);
    },
  );

  it('survives a connection that closes in the middle of a header', async () => {
    const peer = await negotiated();
    peer.sendBytes(header(32).subarray(0, 9));
    peer.close();
    await expectServing(backend);
  });

  it('ignores a reply to nothing', async () => {
    const peer = await negotiated();
    peer.send(Command.deviceGetInfo, GET_INFO, { id: 9, flags: HeaderFlag.reply });
    peer.send(Command.deviceGetInfo, GET_INFO, { id: 10 });
    expect((await peer.next()).id).toBe(10);
  });

  it('answers a message of a type that is neither command nor reply with EINVAL', async () => {
    const peer = await negotiated();
    peer.send(Command.deviceGetInfo, GET_INFO, { id: 11, flags: 5 });
    expect(await peer.next()).toMatchObject({ id: 11, error: Errno.EINVAL });
    peer.close();
    await expectServing(backend);
  });
});
