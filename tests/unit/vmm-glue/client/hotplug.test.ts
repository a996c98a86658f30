// Hot-plug events of the client library: order, answers, and servers that send nonsense.

import { fstatSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Errno } from '../../../../protocol/errno.ts';
import {
  decodeHotplugReply,
  encodeEnableBegin,
  encodeEnableEnd,
  encodeVfPlug,
  encodeVfUnplug,
  HotplugCommand,
} from '../../../../protocol/hotplug/codec.ts';
import { createEventFd } from '../../../../protocol/unix/eventfd.ts';
import { HeaderFlag } from '../../../../protocol/vfio-user/messages.ts';
import { type HotplugEvent, HotplugEvents } from '../../../../vmm-glue/client/hotplug.ts';
import { FakeServer } from './fake-server.ts';

const ASKED = { capabilities: { sriov_hotplug: { version: 1, role: 'vmm' } } };

const BEGIN = encodeEnableBegin({ generation: 3, numVfs: 2 });
const END = encodeEnableEnd({ generation: 3, outcome: 'enabled', text: '' });
const PLUG = encodeVfPlug({
  vfIndex: 1,
  generation: 3,
  routingIdOffset: 2,
  vendorId: 0x1234,
  deviceId: 0x10b1,
  bars: [],
  msixVectors: 4,
});
const UNPLUG = encodeVfUnplug({
  vfIndex: 1,
  generation: 3,
  deadlineMilliseconds: 100,
  reason: 'guestDisabled',
});

async function granted() {
  return FakeServer.withClient({ sriov_hotplug: { version: 1 } }, ASKED);
}

function next(events: AsyncIterable<HotplugEvent>): Promise<HotplugEvent> {
  return events[Symbol.asyncIterator]()
    .next()
    .then((result) => result.value as HotplugEvent);
}

/** Lets the loopback transport deliver. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe('hot-plug events', () => {
  it('come in the order of arrival, also those from before anybody asked', async () => {
    const { server, client } = await granted();
    server.command(HotplugCommand.enableBegin, BEGIN, 1);
    server.command(HotplugCommand.vfPlug, PLUG, 2);
    server.command(HotplugCommand.vfUnplug, UNPLUG, 3);
    server.command(HotplugCommand.enableEnd, END, 4, HeaderFlag.noReply);
    const kinds: string[] = [];
    for await (const event of client.hotplugEvents()) {
      kinds.push(event.kind);
      if (event.kind === 'enableEnd') {
        break;
      }
    }
    expect(kinds).toEqual(['enableBegin', 'vfPlug', 'vfUnplug', 'enableEnd']);
  });

  it('are not lost between one loop and the next', async () => {
    const { server, client } = await granted();
    server.command(HotplugCommand.enableBegin, BEGIN, 1);
    server.command(HotplugCommand.vfPlug, PLUG, 2);
    for await (const event of client.hotplugEvents()) {
      expect(event.kind).toBe('enableBegin');
      break;
    }
    expect((await next(client.hotplugEvents())).kind).toBe('vfPlug');
  });

  it('are answered for the VF and generation that they are about, once', async () => {
    const { server, client } = await granted();
    server.command(HotplugCommand.vfPlug, PLUG, 42);
    const event = await next(client.hotplugEvents());
    if (event.kind === 'vfPlug') {
      event.done();
      event.refuse(Errno.EIO, 'too late');
    }
    await settle();
    expect(server.seen).toHaveLength(1);
    expect(server.seen[0]?.id).toBe(42);
    expect(decodeHotplugReply(server.seen[0]!.body)).toEqual({
      vfIndex: 1,
      generation: 3,
      result: 'done',
      errno: 0,
      text: '',
    });
  });

  it('carry a refusal with errno and text', async () => {
    const { server, client } = await granted();
    server.command(HotplugCommand.vfUnplug, UNPLUG);
    const event = await next(client.hotplugEvents());
    if (event.kind === 'vfUnplug') {
      event.refuse(Errno.EBUSY, 'in use');
    }
    await settle();
    expect(decodeHotplugReply(server.seen[0]!.body)).toMatchObject({
      result: 'refused',
      errno: Errno.EBUSY,
      text: 'in use',
    });
  });

  it('have no socket where none came', async () => {
    const { server, client } = await granted();
    server.command(HotplugCommand.vfPlug, PLUG);
    const event = await next(client.hotplugEvents());
    expect(event.kind === 'vfPlug' && event.takeFd()).toBeUndefined();
  });

  it('end when the connection ends', async () => {
    const { server, client } = await granted();
    const ending = client.hotplugEvents()[Symbol.asyncIterator]().next();
    server.transport.close();
    expect((await ending).done).toBe(true);
    expect((await client.hotplugEvents()[Symbol.asyncIterator]().next()).done).toBe(true);
  });

  it.each<[string, number, Uint8Array]>([
    ['a VfPlug that is no protobuf', HotplugCommand.vfPlug, Uint8Array.of(0xff, 0xff)],
    ['an empty VfPlug', HotplugCommand.vfPlug, new Uint8Array(0)],
    ['a cut VfUnplug', HotplugCommand.vfUnplug, UNPLUG.subarray(0, UNPLUG.length - 1)],
    ['an EnableBegin without a generation', HotplugCommand.enableBegin, new Uint8Array(0)],
  ])('are not made of %s, which is answered with EPROTO', async (_, command, body) => {
    const { server, client } = await granted();
    server.command(command, body, 5);
    await settle();
    expect(server.seen[0]).toMatchObject({ id: 5, error: Errno.EPROTO });
    expect(client.isOpen).toBe(true);
  });

  it('are refused to a client that did not negotiate them, and so are the server’s commands', async () => {
    const { server, client } = await FakeServer.withClient();
    expect(() => client.hotplugEvents()).toThrow('did not grant');
    server.command(HotplugCommand.vfPlug, PLUG, 5);
    await settle();
    expect(server.seen[0]?.error).toBe(Errno.ENOSYS);
  });

  it('keep the first of two sockets and close the other; a refusal closes the first', async () => {
    const events = new HotplugEvents();
    const [first, surplus] = [createEventFd(), createEventFd()];
    const replies: Uint8Array[] = [];
    events.accept({
      command: HotplugCommand.vfPlug,
      body: PLUG,
      fds: [first, surplus],
      noReply: false,
      reply: (body) => replies.push(body),
      fail: () => {},
    });
    expect(() => fstatSync(surplus)).toThrow('EBADF');
    expect(() => fstatSync(first)).not.toThrow();
    const event = await next(events);
    if (event.kind === 'vfPlug') {
      event.refuse(Errno.ENOMEM, 'no room');
    }
    expect(() => fstatSync(first)).toThrow('EBADF');
    expect(replies).toHaveLength(1);
  });

  it('close the sockets of VFs that nobody took when the connection ends', () => {
    const events = new HotplugEvents();
    const socket = createEventFd();
    events.accept({
      command: HotplugCommand.vfPlug,
      body: PLUG,
      fds: [socket],
      noReply: false,
      reply: () => {},
      fail: () => {},
    });
    events.end();
    expect(() => fstatSync(socket)).toThrow('EBADF');
  });
});
