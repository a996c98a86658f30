// The client library against a scripted server: matching of replies, errors, limits, and servers that break the rules.

import { describe, expect, it } from 'vitest';
import { Errno } from '../../../../protocol/errno.ts';
import { HotplugCommand } from '../../../../protocol/hotplug/commands.ts';
import { encodeRegionChanged, RegionChanged } from '../../../../protocol/hotplug/region-changed.ts';
import { Command } from '../../../../protocol/vfio-user/commands.ts';
import { HeaderFlag, RegionAccess } from '../../../../protocol/vfio-user/messages.ts';
import { type Capabilities, encodeVersion } from '../../../../protocol/vfio-user/version.ts';
import { type ClientOptions, VfioUserClient } from '../../../../vmm-glue/client/client.ts';
import { RemoteError, ReplyTimeoutError } from '../../../../vmm-glue/client/connection-errors.ts';
import { loopbackPair } from '../../../../vmm-glue/client/loopback-transport.ts';
import { ManualClock } from '../../../fakes/manual-clock.ts';
import { FakeServer, type SeenFrame } from './fake-server.ts';

/** Answers region reads with bytes that count up from the offset. */
function serveReads(server: FakeServer): void {
  server.onCommand = (frame) => server.reply(frame, readReply(frame));
}

function readReply(frame: SeenFrame): Uint8Array {
  const access = RegionAccess.decode(frame.body);
  const body = RegionAccess.encode(access, new Uint8Array(RegionAccess.size + access.count));
  for (let i = 0; i < access.count; i += 1) {
    body[RegionAccess.size + i] = Number(access.offset) + i;
  }
  return body;
}

describe('the client', () => {
  it('goes by what the server granted', async () => {
    const { client } = await FakeServer.withClient({ max_msg_fds: 3, max_data_xfer_size: 100 });
    expect(client.agreed).toMatchObject({ maxMsgFds: 3, maxDataXferSize: 100 });
  });

  it('matches replies that come in another order', async () => {
    const { server, client } = await FakeServer.withClient();
    const held: SeenFrame[] = [];
    server.onCommand = (frame) => {
      held.push(frame);
      if (held.length === 3) {
        for (const each of held.reverse()) {
          server.reply(each, readReply(each));
        }
      }
    };
    const values = await Promise.all([1, 2, 3].map((offset) => client.readRegion(0, offset, 1)));
    expect(values.map((bytes) => bytes[0])).toEqual([1, 2, 3]);
  });

  it('reads in pieces no longer than the server takes', async () => {
    const { server, client } = await FakeServer.withClient({ max_data_xfer_size: 10 });
    serveReads(server);
    const bytes = await client.readRegion(0, 0, 25);
    expect([...bytes]).toEqual(Array.from({ length: 25 }, (_, i) => i));
    expect(server.seen.map((frame) => RegionAccess.decode(frame.body).count)).toEqual([10, 10, 5]);
  });

  it('rejects with the errno of an error reply', async () => {
    const { server, client } = await FakeServer.withClient();
    server.onCommand = (frame) => server.reply(frame, undefined, Errno.EBUSY);
    const error = await client.reset().catch((each: unknown) => each);
    expect(error).toBeInstanceOf(RemoteError);
    expect(error).toMatchObject({ code: 'EBUSY', errno: 16, command: Command.deviceReset });
  });

  it('rejects a reply that names another command', async () => {
    const { server, client } = await FakeServer.withClient();
    server.onCommand = ({ id }) => server.reply({ id, command: Command.dmaMap });
    await expect(client.reset()).rejects.toThrow('names command 2');
  });

  it('rejects a read whose reply is too short', async () => {
    const { server, client } = await FakeServer.withClient();
    server.onCommand = (frame) => server.reply(frame, readReply(frame).subarray(0, 18));
    await expect(client.readRegion(0, 0, 4)).rejects.toThrow('the reply has 2');
  });

  it('ignores a reply to nothing', async () => {
    const { server, client } = await FakeServer.withClient();
    serveReads(server);
    server.reply({ id: 999, command: Command.deviceReset });
    expect((await client.readRegion(0, 5, 1))[0]).toBe(5);
  });

  it('gives up on a silent server and goes on with the next call', async () => {
    const clock = new ManualClock();
    const options = { replyTimeoutMilliseconds: 20, clock };
    const { server, client } = await FakeServer.withClient({}, options);
    const reset = client.reset();
    await settle();
    clock.elapse(20);
    await expect(reset).rejects.toBeInstanceOf(ReplyTimeoutError);
    const [late] = server.seen;
    server.reply(late!);
    serveReads(server);
    expect((await client.readRegion(0, 5, 1))[0]).toBe(5);
  });

  it('rejects all calls in flight when the server closes', async () => {
    const { server, client } = await FakeServer.withClient();
    const calls = [client.reset(), client.deviceInfo()].map((call) => call.catch(String));
    server.onCommand = () => server.transport.close();
    expect(await Promise.all(calls)).toEqual([
      expect.stringContaining('closed'),
      expect.stringContaining('closed'),
    ]);
    expect(await client.closed).toBeInstanceOf(Error);
    await expect(client.reset()).rejects.toThrow('closed');
  });

  it('closes without a reason when its owner closes it', async () => {
    const { client } = await FakeServer.withClient();
    client.close();
    expect(await client.closed).toBeUndefined();
    expect(client.isOpen).toBe(false);
  });

  it('ends the connection when the server breaks the framing', async () => {
    const { server, client } = await FakeServer.withClient();
    const call = client.reset();
    server.transport.send(new Uint8Array(16));
    await expect(call).rejects.toThrow('broke the protocol');
  });

  it('answers a command that it does not know with ENOSYS', async () => {
    const { server, client } = await FakeServer.withClient();
    server.command(0x1234, new Uint8Array(4), 77);
    await settle();
    expect(client.isOpen).toBe(true);
    expect(server.seen[0]).toMatchObject({ id: 77, command: 0x1234, error: Errno.ENOSYS });
  });

  it('does not answer a command that wants no reply', async () => {
    const { server, client } = await FakeServer.withClient();
    server.command(0x1234, new Uint8Array(4), 77, HeaderFlag.noReply);
    await settle();
    serveReads(server);
    await client.readRegion(0, 0, 1);
    expect(server.seen.map((frame) => frame.command)).toEqual([Command.regionRead]);
  });

  describe('told that a region has changed', () => {
    const GRANTED = { region_changed: { version: 1 } };

    async function tell(
      capabilities: Capabilities,
      onRegionChanged: ClientOptions['onRegionChanged'],
      body = encodeRegionChanged(4),
    ): Promise<SeenFrame | undefined> {
      const { server, client } = await FakeServer.withClient(
        capabilities,
        onRegionChanged === undefined ? {} : { onRegionChanged },
      );
      server.command(HotplugCommand.regionChanged, body, 77);
      await settle();
      await settle();
      expect(client.isOpen).toBe(true);
      return server.seen[0];
    }

    it('answers when what was mapped has been let go', async () => {
      const regions: number[] = [];
      const { server } = await FakeServer.withClient(GRANTED, {
        onRegionChanged: async (index) => {
          regions.push(index);
          await settle();
          expect(server.seen).toEqual([]);
        },
      });
      server.command(HotplugCommand.regionChanged, encodeRegionChanged(4), 77);
      await settle();
      await settle();
      await settle();
      expect(regions).toEqual([4]);
      expect(server.seen[0]).toMatchObject({ id: 77, error: 0 });
      expect(server.seen[0]!.body).toHaveLength(0);
    });

    it('says EIO where it could not, EINVAL to a body that is too short or says so', async () => {
      const fail = () => {
        throw new Error('no room');
      };
      expect(await tell(GRANTED, fail)).toMatchObject({ error: Errno.EIO });
      const short = encodeRegionChanged(4).subarray(0, 7);
      expect(await tell(GRANTED, () => {}, short)).toMatchObject({ error: Errno.EINVAL });
      const lying = RegionChanged.encode({ argsz: 4, index: 4 });
      expect(await tell(GRANTED, () => {}, lying)).toMatchObject({ error: Errno.EINVAL });
    });

    it('says ENOSYS where it was not agreed upon', async () => {
      expect(await tell({}, () => {})).toMatchObject({ error: Errno.ENOSYS });
      await expect(tell(GRANTED, undefined)).rejects.toThrow('region_changed, which was not');
    });
  });

  it('posts writes without waiting, in order with calls', async () => {
    const { server, client } = await FakeServer.withClient();
    serveReads(server);
    client.postRegionWrite(0, 8, Uint8Array.of(1));
    await client.readRegion(0, 0, 1);
    expect(server.seen.map(({ command, flags }) => [command, flags])).toEqual([
      [Command.regionWrite, HeaderFlag.noReply],
      [Command.regionRead, HeaderFlag.command],
    ]);
  });

  it('refuses to send what would end the connection, or has no room in its message', async () => {
    const { server, client } = await FakeServer.withClient({ max_data_xfer_size: 4096 });
    expect(() => client.postRegionWrite(0, 8, new Uint8Array(4097))).toThrow('use writeRegion');
    for (const length of [0, 9]) {
      const write = { region: 0, offset: 8, bytes: new Uint8Array(length) };
      await expect(client.writeRegionMulti([write])).rejects.toThrow('each write has 1 to 8');
    }
    expect(server.seen).toEqual([]);
  });

  it.each<[string, Uint8Array]>([
    ['a higher minor version', encodeVersion(0, 9, {})],
    ['another major version', encodeVersion(1, 0, {})],
    ['an extension that was not proposed', encodeVersion(0, 0, { sriov_hotplug: { version: 1 } })],
    ['JSON that is none', Uint8Array.of(0, 0, 0, 0, 0x7b)],
    ['nothing', new Uint8Array(0)],
  ])('refuses a server that answers VERSION with %s', async (_, answer) => {
    const [near, far] = loopbackPair();
    const connecting = VfioUserClient.over(near);
    far.start({
      chunk: () => far.send(frameOf(answer)),
      ended: () => {},
    });
    await expect(connecting).rejects.toThrow();
  });

  it('serves DMA messages from the memory that it was given', async () => {
    const memory = Uint8Array.from({ length: 16 }, (_, i) => i);
    const range = (address: bigint, length: number): Uint8Array | undefined =>
      Number(address) + length <= 16
        ? memory.subarray(Number(address), Number(address) + length)
        : undefined;
    const messageDma = {
      read: (address: bigint, into: Uint8Array): boolean => {
        into.set(range(address, into.length) ?? []);
        return range(address, into.length) !== undefined;
      },
      write: (address: bigint, from: Uint8Array): boolean => {
        range(address, from.length)?.set(from);
        return range(address, from.length) !== undefined;
      },
    };
    const { server, client } = await FakeServer.withClient({}, { messageDma });
    server.command(Command.dmaRead, dmaBody(4n, 3n), 1);
    server.command(Command.dmaWrite, Uint8Array.of(...dmaBody(8n, 2n), 70, 71), 2);
    server.command(Command.dmaRead, dmaBody(15n, 2n), 3);
    server.command(Command.dmaRead, dmaBody(0n, 1n << 40n), 4);
    await settle();
    expect(client.isOpen).toBe(true);
    const [read, written, beyond, huge] = server.seen;
    expect([...read!.body.subarray(16)]).toEqual([4, 5, 6]);
    expect(written!.error).toBe(0);
    expect([...memory.subarray(8, 10)]).toEqual([70, 71]);
    expect(beyond!.error).toBe(Errno.EFAULT);
    expect(huge!.error).toBe(Errno.E2BIG);
  });
});

/** Lets the loopback transport deliver. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

function dmaBody(address: bigint, count: bigint): Uint8Array {
  const body = new Uint8Array(16);
  const view = new DataView(body.buffer);
  view.setBigUint64(0, address, true);
  view.setBigUint64(8, count, true);
  return body;
}

function frameOf(versionReply: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(16 + versionReply.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 1, true);
  view.setUint16(2, Command.version, true);
  view.setUint32(4, bytes.length, true);
  view.setUint32(8, HeaderFlag.reply, true);
  bytes.set(versionReply, 16);
  return bytes;
}
