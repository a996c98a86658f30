// File descriptors and full sockets: what only a unix socket has.

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Command, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { encodeHeaderInto } from '../../protocol/vfio-user/framing.ts';
import { DeviceInfo, HeaderFlag, RegionAccess } from '../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../protocol/vfio-user/version.ts';
import { Backend, expectServing, expectSoon } from './backend.ts';
import { RawPeer } from './raw-peer.ts';

const GET_INFO = DeviceInfo.encode({ argsz: DeviceInfo.size, flags: 0, numRegions: 0, numIrqs: 0 });

let backend: Backend;
beforeAll(async () => {
  backend = await Backend.start();
});
afterEach(() => backend.disconnect());
afterAll(() => backend.stop());

async function negotiated(): Promise<RawPeer> {
  const peer = backend.raw();
  await peer.negotiate();
  return peer;
}

function header(size: number): Uint8Array {
  const bytes = new Uint8Array(16);
  encodeHeaderInto(bytes, 0, 7, Command.deviceGetInfo, size, HeaderFlag.command, 0);
  return bytes;
}

describe('a unix socket', () => {
  it('survives a connection that closes in the middle of a body with fds attached', async () => {
    const before = await backend.quietFdCount();
    const peer = await negotiated();
    peer.sendBytes(header(1000), [0, 0]);
    peer.close();
    await expectServing(backend);
    expect(await backend.quietFdCount()).toBeLessThanOrEqual(before);
  });

  it('closes fds that come with a command that takes none', async () => {
    await expectServing(backend);
    const peer = await negotiated();
    const before = await backend.quietFdCount();
    peer.send(Command.deviceGetInfo, GET_INFO, { fds: [0, 0, 0, 0] });
    await peer.next();
    await expectSoon(() => backend.quietFdCount(), before);
  });

  it('closes file descriptors that come with VERSION', async () => {
    const before = await backend.quietFdCount();
    const peer = backend.raw();
    peer.send(Command.version, encodeVersion(0, 1, {}), { fds: [0, 0, 0] });
    await peer.next();
    expect(await backend.quietFdCount()).toBeLessThanOrEqual(before + 1);
  });

  it('keeps serving while a client does not read its replies', async () => {
    const lazy = RawPeer.connectWithoutReading(backend.socketPath);
    lazy.send(Command.version, encodeVersion(0, 1, {}), { id: 0 });
    const read = RegionAccess.encode({ offset: 0n, region: RegionIndex.config, count: 4096 });
    for (let id = 1; id <= 2000; id += 1) {
      lazy.send(Command.regionRead, read, { id });
    }
    const observer = await backend.connect({ capabilities: { sriov_status: { version: 1 } } });
    await observer.getStatus();
    lazy.startReading();
    for (let id = 0; id <= 2000; id += 1) {
      expect((await lazy.next()).id).toBe(id);
    }
    lazy.close();
  });
});
