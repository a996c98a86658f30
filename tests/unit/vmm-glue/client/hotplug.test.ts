// Hot-plug events of the client library: order, answers, and servers that send nonsense.

import { fstatSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Errno } from '../../../../protocol/errno.ts';
import {
  decodeGetSlots,
  decodeHotplugReply,
  encodeEnableBegin,
  encodeEnableEnd,
  encodeSlots,
  encodeVfMemorySpace,
  encodeVfPlug,
  encodeVfUnplug,
} from '../../../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../../../protocol/hotplug/commands.ts';
import type { VfPlug } from '../../../../protocol/hotplug/messages.ts';
import { createEventFd } from '../../../../protocol/unix/eventfd.ts';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import { HeaderFlag } from '../../../../protocol/vfio-user/messages.ts';
import { type HotplugEvent, HotplugEvents } from '../../../../vmm-glue/client/hotplug.ts';
import { FakeServer } from './fake-server.ts';

const ASKED = { capabilities: { sriov_hotplug: { version: 1, role: 'vmm' } } };

const BEGIN = encodeEnableBegin({ generation: 3, numVfs: 2 });
const END = encodeEnableEnd({ generation: 3, outcome: 'enabled', text: '' });
const VF1: VfPlug = {
  vfIndex: 1,
  generation: 3,
  routingIdOffset: 2,
  vendorId: 0x1234,
  deviceId: 0x10b1,
  bars: [],
  msixVectors: 4,
  socketPath: 'vf1',
};
const PLUG = encodeVfPlug(VF1);
const PLUG_BY_FD = encodeVfPlug({ ...VF1, socketPath: undefined });
const UNPLUG_VF1 = {
  vfIndex: 1,
  generation: 3,
  deadlineMilliseconds: 100,
  reason: 'guestDisabled',
} as const;
const UNPLUG = encodeVfUnplug(UNPLUG_VF1);
const MEMORY_SPACE = encodeVfMemorySpace({ generation: 3, enabled: true, silentVfs: [] });
const NO_REPLY = HeaderFlag.command | HeaderFlag.noReply;

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

describe('slots that have moved', () => {
  it('are told as often as the server says so, also when it did before anybody listened', async () => {
    const { server, client } = await granted();
    let told = 0;
    server.command(HotplugCommand.slotsMoved, new Uint8Array(), 1, NO_REPLY);
    await settle();
    client.whenSlotsMoved(() => told++);
    expect(told).toBe(1);
    server.command(HotplugCommand.slotsMoved, new Uint8Array(), 2, NO_REPLY);
    await settle();
    expect(told).toBe(2);
    expect(server.seen).toEqual([]);
  });

  it('are asked for', async () => {
    const { server, client } = await granted();
    const bars = [{ index: 0, size: 4096n, is64Bit: false, prefetchable: false, address: 0x1000n }];
    const slots = [{ vfIndex: 1, routingIdOffset: 2, bars, placementLost: false, slotCommand: 2 }];
    server.onCommand = (frame) => server.reply(frame, encodeSlots(slots));
    expect(await client.slots(1, 1)).toEqual(slots);
    expect(decodeGetSlots(server.seen[0]!.body)).toEqual({ firstVf: 1, count: 1 });
  });
});

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
    ['a cut VfUnplug', HotplugCommand.vfUnplug, UNPLUG.subarray(0, UNPLUG.length - 1)],
  ])('are not made of %s, which is answered with EPROTO', async (_, command, body) => {
    await expectError(command, body, Errno.EPROTO);
  });

  it.each<[string, number, Uint8Array]>([
    ['an empty VfPlug', HotplugCommand.vfPlug, new Uint8Array(0)],
    ['an EnableBegin without a generation', HotplugCommand.enableBegin, new Uint8Array(0)],
    [
      'an EnableBegin of 65536 VFs',
      HotplugCommand.enableBegin,
      Uint8Array.of(8, 3, 16, 128, 128, 4),
    ],
  ])('are not made of %s, which is answered with EINVAL', async (_, command, body) => {
    await expectError(command, body, Errno.EINVAL);
  });

  it('are not made of a hot-plug command of a later version, which is answered with ENOSYS', async () => {
    await expectError(0x8006, new Uint8Array(0), Errno.ENOSYS);
  });

  it('end with the connection when an EnableEnd cannot be read', async () => {
    const { server, client } = await granted();
    const ending = client.hotplugEvents()[Symbol.asyncIterator]().next();
    server.command(HotplugCommand.enableEnd, Uint8Array.of(0x10, 9), 5, HeaderFlag.noReply);
    expect((await ending).done).toBe(true);
    expect(client.isOpen).toBe(false);
    expect(server.seen).toEqual([]);
  });

  it('are of the latest enable only: what belongs to an earlier one is refused with ESTALE', async () => {
    const { server, client } = await granted();
    server.command(HotplugCommand.enableBegin, BEGIN, 1);
    server.command(HotplugCommand.enableBegin, encodeEnableBegin({ generation: 2, numVfs: 1 }), 2);
    server.command(HotplugCommand.vfPlug, encodeVfPlug({ ...VF1, generation: 2 }), 3);
    const old = encodeEnableEnd({ generation: 2, outcome: 'failed', text: '' });
    server.command(HotplugCommand.enableEnd, old, 4, HeaderFlag.noReply);
    server.command(HotplugCommand.enableEnd, END, 5, HeaderFlag.noReply);
    await settle();
    expect(server.seen.map(({ id, body }) => [id, decodeHotplugReply(body).errno])).toEqual([
      [2, Errno.ESTALE],
      [3, Errno.ESTALE],
    ]);
    const events = client.hotplugEvents();
    expect([await next(events), await next(events)].map(({ message }) => message)).toMatchObject([
      { generation: 3 },
      { generation: 3, outcome: 'enabled' },
    ]);
  });

  it('are not made of a VF that is plugged already, until it was unplugged or refused', async () => {
    const { server, client } = await granted();
    const events = client.hotplugEvents();
    server.command(HotplugCommand.vfPlug, PLUG, 1);
    server.command(HotplugCommand.vfPlug, PLUG, 2);
    server.command(HotplugCommand.vfPlug, PLUG, 3);
    await settle();
    expect(server.seen.map(({ body }) => decodeHotplugReply(body).errno)).toEqual([
      Errno.EEXIST,
      Errno.EEXIST,
    ]);
    await next(events);
    server.command(HotplugCommand.vfUnplug, UNPLUG, 4);
    await next(events);
    server.command(HotplugCommand.vfPlug, PLUG, 5);
    const again = await next(events);
    if (again.kind === 'vfPlug') {
      again.refuse(Errno.ENOMEM, 'no room');
    }
    server.command(HotplugCommand.vfPlug, PLUG, 6);
    expect((await next(events)).kind).toBe('vfPlug');
  });

  it('are not made of an unplug of a VF that was plugged anew: nothing of the old one is left', async () => {
    const { server } = await granted();
    server.command(HotplugCommand.vfPlug, PLUG, 1);
    server.command(HotplugCommand.vfUnplug, encodeVfUnplug({ ...UNPLUG_VF1, generation: 2 }), 2);
    await settle();
    expect(decodeHotplugReply(server.seen[0]!.body)).toMatchObject({
      generation: 2,
      result: 'done',
    });
  });

  it.each([
    ['did not negotiate them', {}],
    ['asked for them in vain', ASKED],
  ])('are refused to a client that %s, and so are the server’s commands', async (_, options) => {
    const { server, client } = await FakeServer.withClient({}, options);
    expect(() => client.hotplugEvents()).toThrow('did not grant');
    server.command(HotplugCommand.vfPlug, PLUG, 5);
    await settle();
    expect(server.seen[0]?.error).toBe(Errno.ENOSYS);
  });

  it.each<[string, number, string | undefined]>([
    ['two sockets', 2, undefined],
    ['a socket and a path', 1, 'vf1'],
    ['neither socket nor path', 0, undefined],
  ])(
    'are not made of a VfPlug with %s: EINVAL, and what came is closed',
    (_, count, socketPath) => {
      const fds = Array.from({ length: count }, createEventFd);
      const { replies } = accept('vmm', encodeVfPlug({ ...VF1, socketPath }), fds);
      expect(decodeHotplugReply(replies[0]!)).toMatchObject({
        result: 'refused',
        errno: Errno.EINVAL,
        vfIndex: 1,
        generation: 3,
      });
      for (const fd of fds) {
        expect(() => fstatSync(fd)).toThrow('EBADF');
      }
    },
  );

  it('bring a glue no socket; one that came is closed', async () => {
    const socket = createEventFd();
    const { events, replies } = accept('glue', PLUG_BY_FD, [socket]);
    const event = await next(events);
    expect(event.kind === 'vfPlug' && event.takeFd()).toBeUndefined();
    expect(() => fstatSync(socket)).toThrow('EBADF');
    expect(replies).toEqual([]);
  });

  it('close the socket of a VF that is refused, but not of one that was taken', async () => {
    const [first, second] = [createEventFd(), createEventFd()];
    const refused = await next(accept('vmm', PLUG_BY_FD, [first]).events);
    if (refused.kind === 'vfPlug') {
      refused.refuse(Errno.ENOMEM, 'no room');
    }
    expect(() => fstatSync(first)).toThrow('EBADF');
    const taken = await next(accept('vmm', PLUG_BY_FD, [second]).events);
    if (taken.kind === 'vfPlug') {
      expect(taken.takeFd()).toBe(second);
      taken.refuse(Errno.ENOMEM, 'no room');
    }
    expect(() => fstatSync(second)).not.toThrow();
    closeFd(second);
  });

  it('close the sockets of VFs that nobody took when the connection ends', () => {
    const socket = createEventFd();
    accept('vmm', PLUG_BY_FD, [socket]).events.end();
    expect(() => fstatSync(socket)).toThrow('EBADF');
  });

  it('end with the connection: a reader who comes later is given none without its socket', async () => {
    const { events } = accept('vmm', PLUG_BY_FD, [createEventFd()]);
    events.end();
    expect(await events[Symbol.asyncIterator]().next()).toEqual({ value: undefined, done: true });
  });

  it.each([0.5, -1, 4096])(
    'can still be answered after a refusal by the errno %s',
    async (errno) => {
      const { events, replies } = accept('vmm', PLUG);
      const event = await next(events);
      if (event.kind === 'vfPlug') {
        expect(() => event.refuse(errno, 'no room')).toThrow('HotplugReply.errno');
        event.done();
      }
      expect(replies.map(decodeHotplugReply)).toMatchObject([{ result: 'done' }]);
    },
  );

  it.each([
    ['EnableBegin', HotplugCommand.enableBegin, BEGIN],
    ['VfPlug', HotplugCommand.vfPlug, PLUG],
    ['VfMemorySpace', HotplugCommand.vfMemorySpace, MEMORY_SPACE],
  ])(
    'are not made of a %s of a generation before the highest of any message: ESTALE',
    (_, command, body) => {
      const later = encodeVfUnplug({ ...UNPLUG_VF1, generation: 4 });
      const { events, replies } = accept('glue', later, [], HotplugCommand.vfUnplug);
      accept('glue', body, [], command, { events, replies });
      expect(replies.map(decodeHotplugReply)).toMatchObject([
        { result: 'refused', errno: Errno.ESTALE, generation: 3 },
      ]);
    },
  );
});

/** A command, a VfPlug if not told otherwise, as it arrives over a transport that carries fds. */
function accept(
  role: 'vmm' | 'glue',
  body: Uint8Array,
  fds: number[] = [],
  command: number = HotplugCommand.vfPlug,
  before: { events: HotplugEvents; replies: Uint8Array[] } = {
    events: new HotplugEvents(role, () => {}),
    replies: [],
  },
): { events: HotplugEvents; replies: Uint8Array[] } {
  const { events, replies } = before;
  events.accept({
    command,
    body,
    fds,
    noReply: false,
    reply: (reply) => replies.push(reply),
    fail: () => {},
  });
  return { events, replies };
}

/** Sends a command of the server's that is answered by an error reply, after which the client goes on. */
async function expectError(command: number, body: Uint8Array, errno: number): Promise<void> {
  const { server, client } = await granted();
  server.command(command, body, 5);
  await settle();
  expect(server.seen[0]).toMatchObject({ id: 5, error: errno });
  expect(client.isOpen).toBe(true);
}
