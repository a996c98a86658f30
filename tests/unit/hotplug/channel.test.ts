import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HotplugChannel } from '../../../backend/hotplug/channel.ts';
import { HANDLERS } from '../../../backend/server/handlers.ts';
import { Session } from '../../../backend/server/session.ts';
import type { Event } from '../../../backend/sriov/states-and-events.ts';
import { Errno } from '../../../protocol/errno.ts';
import {
  decodeEnableBegin,
  decodeEnableEnd,
  decodeVfPlug,
  decodeVfUnplug,
  encodeHotplugReply,
} from '../../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../../protocol/hotplug/commands.ts';
import type { HotplugReply } from '../../../protocol/hotplug/messages.ts';
import {
  EARLY_ANSWER_MILLISECONDS,
  TOLD_OF_VFS_MILLISECONDS,
} from '../../../protocol/hotplug/timing.ts';
import { logInto, SILENT } from '../../../protocol/log.ts';
import { createEventFd } from '../../../protocol/unix/eventfd.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import { HeaderFlag } from '../../../protocol/vfio-user/messages.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { RecordingConnection } from '../../fakes/recording-connection.ts';
import { DeviceUnderTest } from '../device/device-under-test.ts';
import { openFds } from '../protocol/unix/open-fds.ts';

const GENERATION = 3;

let before: number;
let device: DeviceUnderTest;
let clock: ManualClock;
let channel: HotplugChannel;
let connection: RecordingConnection;
let session: Session;
let events: Event[];
let plugged: number[];
let vfSession: { session: Session; connection: RecordingConnection } | undefined;
let connectVf: () => { session: Session; peerFd: number };
let log: string[];
let vfBar: bigint;
let placementLost: boolean;

beforeEach(() => {
  vfBar = 0x1_0000n;
  placementLost = true;
  before = openFds();
  device = new DeviceUnderTest();
  events = [];
  plugged = [];
  log = [];
  vfSession = undefined;
  connectVf = () => {
    vfSession = newSession();
    return { session: vfSession.session, peerFd: createEventFd() };
  };
  clock = new ManualClock();
  channel = new HotplugChannel({
    clock,
    leastMakingMilliseconds: 100,
    describeVf: (vfIndex) => ({
      routingIdOffset: vfIndex + 1,
      vendorId: 0x1234,
      deviceId: 0x10b1,
      bars: [{ index: 0, size: 16384n, is64Bit: true, prefetchable: true, address: vfBar }],
      msixVectors: 4,
      placementLost,
    }),
    isPlaced: () => false,
    connectVf: () => connectVf(),
    vfSocketPath: (vfIndex) => `vf${vfIndex}`,
    plugging: (vfIndex) => () => {
      plugged.push(vfIndex);
      placementLost = false;
    },
    event: (event) => events.push(event),
    log: logInto((level, message) => log.push(`${level}: ${message}`)),
  });
  ({ session, connection } = newSession());
});
afterEach(() => {
  session.close();
  device.close();
  expect(openFds()).toBe(before);
});

function newSession(): { session: Session; connection: RecordingConnection } {
  const its = new RecordingConnection();
  const endpoint = { function: device.vf, native: true };
  return {
    session: new Session(its, endpoint, HANDLERS, SILENT, new ManualClock()),
    connection: its,
  };
}

/** The client answers a command, the last one if it does not say which. */
function answer(command: number, reply: Partial<HotplugReply>, id: number = lastId): void {
  const body = encodeHotplugReply({
    vfIndex: 0,
    generation: GENERATION,
    result: 'done',
    errno: 0,
    text: '',
    ...reply,
  });
  session.receive(encodeFrame({ id, command, flags: HeaderFlag.reply }, body), []);
}

let lastId: number;
function sent() {
  const frames = connection.takeSent();
  lastId = frames.at(-1)?.id ?? 0;
  return frames;
}

describe('a VMM that attaches VFs itself', () => {
  beforeEach(() => channel.attach(session, 'vmm'));

  it('is told of an enable when it begins, and of a VF when it is up, not before', () => {
    channel.beginEnable(GENERATION, 5);
    channel.place(GENERATION, 5);
    const [begin, ...more] = sent();
    expect(decodeEnableBegin(begin!.body)).toEqual({
      generation: GENERATION,
      numVfs: 5,
      readyAfterMilliseconds: 100,
    });
    expect(more).toEqual([]);
  });

  it('gets a VF with a connection of its own, of which no end stays here', () => {
    channel.plug(GENERATION, 1);
    const [frame] = sent();
    expect(frame).toMatchObject({ command: HotplugCommand.vfPlug, noReply: false });
    expect(frame?.fds).toHaveLength(1);
    expect(decodeVfPlug(frame!.body)).toMatchObject({
      vfIndex: 1,
      generation: GENERATION,
      routingIdOffset: 2,
      msixVectors: 4,
      bars: [{ index: 0, size: 16384n, is64Bit: true }],
    });
  });

  it('is given a path where no fd can be sent', () => {
    connection.carriesFds = false;
    channel.plug(GENERATION, 2);
    const [frame] = sent();
    expect(frame?.fds).toEqual([]);
    expect(decodeVfPlug(frame!.body).socketPath).toBe('vf2');
  });

  it('that cannot be given a connection is as good as one that refused', () => {
    connectVf = () => {
      throw new Error('socketpair: EMFILE');
    };
    channel.plug(GENERATION, 1);
    expect(sent()).toEqual([]);
    expect(events).toEqual([
      {
        type: 'plugAnswered',
        vfIndex: 1,
        generation: GENERATION,
        refusal: expect.stringMatching(/EMFILE/),
      },
    ]);
  });

  it('that refuses a VF loses its connection to it', () => {
    channel.plug(GENERATION, 0);
    sent();
    answer(HotplugCommand.vfPlug, { result: 'refused', errno: Errno.ENOSPC });
    expect(vfSession?.connection.isClosed).toBe(true);
    expect(events).toMatchObject([{ type: 'plugAnswered', vfIndex: 0, refusal: 'ENOSPC' }]);
  });

  it('is asked for the VF back with a reason and a deadline, and its connection ends when it has let go', () => {
    channel.plug(GENERATION, 0);
    answerLast(HotplugCommand.vfPlug);
    channel.unplug(GENERATION, 0, 2000, 'pfReset');
    const [frame] = sent();
    expect(decodeVfUnplug(frame!.body)).toEqual({
      vfIndex: 0,
      generation: GENERATION,
      deadlineMilliseconds: 2000,
      reason: 'pfReset',
    });
    expect(vfSession?.connection.isClosed).toBe(false);
    answer(HotplugCommand.vfUnplug, {});
    expect(vfSession?.connection.isClosed).toBe(true);
    expect(events.at(-1)).toEqual({ type: 'unplugAnswered', vfIndex: 0, generation: GENERATION });
  });

  it('keeps its connection to a VF that it refuses to let go of', () => {
    channel.plug(GENERATION, 0);
    channel.unplug(GENERATION, 0, 2000, 'guestDisabled');
    sent();
    answer(HotplugCommand.vfUnplug, { result: 'refused', errno: Errno.EBUSY });
    expect(vfSession?.connection.isClosed).toBe(false);
    expect(events.at(-1)).toMatchObject({ type: 'unplugAnswered', refusal: 'EBUSY' });
  });

  it('that goes loses the connections to its VFs, and is told once', () => {
    channel.plug(GENERATION, 0);
    channel.detach(session);
    channel.detach(session);
    expect(vfSession?.connection.isClosed).toBe(true);
    expect(events).toEqual([{ type: 'peerDetached' }]);
    expect(channel.attached).toBe(false);
  });

  function answerLast(command: number): void {
    sent();
    answer(command, {});
  }
});

describe('a glue', () => {
  beforeEach(() => channel.attach(session, 'glue'));

  it('gets neither fd nor path', () => {
    channel.plug(GENERATION, 0);
    const [frame] = sent();
    expect(frame?.fds).toEqual([]);
    expect(decodeVfPlug(frame!.body).socketPath ?? '').toBe('');
    expect(channel.holdsVfs).toBe(false);
  });

  it('is told of an enable when it begins, and how it ended, to which it has nothing to say', () => {
    channel.beginEnable(GENERATION, 5);
    channel.endEnable(GENERATION, 'failed', 'no room');
    const [begin, end] = sent();
    expect(decodeEnableBegin(begin!.body)).toMatchObject({ generation: GENERATION, numVfs: 5 });
    expect(begin?.noReply).toBe(false);
    expect(end?.noReply).toBe(true);
    expect(decodeEnableEnd(end!.body)).toEqual({
      generation: GENERATION,
      outcome: 'failed',
      text: 'no room',
    });
  });

  it('that refuses to prepare does not stop the enable', () => {
    channel.beginEnable(GENERATION, 5);
    sent();
    answer(HotplugCommand.enableBegin, {
      result: 'refused',
      errno: Errno.EIO,
      text: 'QMP is gone',
    });
    expect(events).toEqual([]);
    expect(log.at(-1)).toMatch(/could not prepare for 5 VFs: QMP is gone/);
  });

  it('that answers for an enable when the next has begun already has said nothing of that one', () => {
    let isPromised = false;
    channel.beginEnable(GENERATION, 1);
    const [first] = sent();
    channel.beginEnable(GENERATION + 1, 1);
    sent();
    channel.whenPauseIsPromised(() => {
      isPromised = true;
    });
    answer(HotplugCommand.enableBegin, {}, first!.id);
    expect(isPromised).toBe(false);
    expect(channel.patienceMilliseconds).toBeGreaterThan(0);
    answer(HotplugCommand.enableBegin, { generation: GENERATION + 1 });
    expect(isPromised).toBe(true);
    expect(channel.patienceMilliseconds).toBe(0);
    expect(channel.isPauseExpected).toBe(true);
  });

  it('keeps a second hot-plug client out, and notices nothing of it', () => {
    const other = newSession().session;
    expect(() => channel.attach(other, 'vmm')).toThrow(expect.objectContaining({ code: 'EBUSY' }));
    channel.detach(other);
    expect(channel.role).toBe('glue');
    expect(events).toEqual([]);
  });
});

describe('a VF of a host that takes long', () => {
  beforeEach(() => {
    channel.attach(session, 'glue');
    channel.place(GENERATION, 1);
  });

  it('is announced to a glue when the host is to have begun', () => {
    clock.elapse(TOLD_OF_VFS_MILLISECONDS - 1);
    expect(sent()).toEqual([]);
    clock.elapse(1);
    expect(sent().map(({ command }) => command)).toEqual([HotplugCommand.vfPlug]);
  });

  it('is announced once, where it is up before that', () => {
    channel.plug(GENERATION, 0);
    clock.elapse(TOLD_OF_VFS_MILLISECONDS);
    expect(sent().map(({ command }) => command)).toEqual([HotplugCommand.vfPlug]);
  });

  it('is not announced after the end of its enable', () => {
    channel.endEnable(GENERATION, 'failed', '');
    clock.elapse(TOLD_OF_VFS_MILLISECONDS);
    expect(sent().map(({ command }) => command)).toEqual([HotplugCommand.enableEnd]);
  });

  it('is not announced to a glue that has gone, nor to the next one', () => {
    channel.detach(session);
    channel.attach(newSession().session, 'glue');
    clock.elapse(TOLD_OF_VFS_MILLISECONDS);
    expect(sent()).toEqual([]);
    expect(clock.pending).toBe(0);
  });
});

describe('a VF that is announced to a glue while it comes up', () => {
  const plugOf = (frame: { body: Uint8Array } | undefined) => decodeVfPlug(frame!.body);

  beforeEach(() => {
    channel.attach(session, 'glue');
    channel.place(GENERATION, 1);
    clock.elapse(TOLD_OF_VFS_MILLISECONDS);
  });

  it('is not announced again when it is up, and its answer counts from then on', () => {
    expect(plugOf(sent()[0])).toMatchObject({ vfIndex: 0, placementLost: true });
    answer(HotplugCommand.vfPlug, {});
    expect(events).toEqual([]);
    expect(plugged).toEqual([0]);
    channel.plug(GENERATION, 0);
    expect(sent()).toEqual([]);
    expect(events).toEqual([{ type: 'plugAnswered', vfIndex: 0, generation: GENERATION }]);
  });

  it('may be up before it is answered', () => {
    sent();
    channel.plug(GENERATION, 0);
    expect(events).toEqual([]);
    answer(HotplugCommand.vfPlug, { result: 'refused', errno: Errno.EIO });
    expect(events).toMatchObject([{ type: 'plugAnswered', vfIndex: 0, refusal: 'EIO' }]);
  });

  it('is taken back, and announced anew, when it comes up somewhere else', () => {
    sent();
    answer(HotplugCommand.vfPlug, {});
    vfBar = 0x2_0000n;
    channel.plug(GENERATION, 0);
    const [unplug, plug] = sent();
    expect(decodeVfUnplug(unplug!.body)).toMatchObject({ vfIndex: 0, generation: GENERATION });
    expect(plugOf(plug).bars).toMatchObject([{ address: 0x2_0000n }]);
    answer(HotplugCommand.vfUnplug, {}, unplug!.id);
    expect(events).toEqual([]);
    answer(HotplugCommand.vfPlug, {}, plug!.id);
    expect(events).toMatchObject([{ type: 'plugAnswered', vfIndex: 0 }]);
  });

  it('is announced anew when its slot was reset after it was placed', () => {
    sent();
    answer(HotplugCommand.vfPlug, {});
    placementLost = true;
    channel.plug(GENERATION, 0);
    expect(sent().map(({ command }) => command)).toEqual([
      HotplugCommand.vfUnplug,
      HotplugCommand.vfPlug,
    ]);
  });

  it('that the glue refuses is refused at once', () => {
    sent();
    answer(HotplugCommand.vfPlug, { result: 'refused', errno: Errno.ENODEV, text: 'no slot' });
    expect(events).toEqual([
      { type: 'plugAnswered', vfIndex: 0, generation: GENERATION, refusal: 'no slot' },
    ]);
  });

  it('is announced anew when its answer is so old that the glue may have given up', () => {
    sent();
    answer(HotplugCommand.vfPlug, {});
    clock.elapse(EARLY_ANSWER_MILLISECONDS + 1);
    channel.plug(GENERATION, 0);
    expect(sent().map(({ command }) => command)).toEqual([
      HotplugCommand.vfUnplug,
      HotplugCommand.vfPlug,
    ]);
  });

  it('is taken back when the enable fails before it is up', () => {
    sent();
    channel.endEnable(GENERATION, 'failed', 'the host could not make it');
    const [end, unplug] = sent();
    expect(end?.command).toBe(HotplugCommand.enableEnd);
    expect(decodeVfUnplug(unplug!.body)).toMatchObject({
      vfIndex: 0,
      generation: GENERATION,
      reason: 'vfLost',
    });
    answer(HotplugCommand.vfUnplug, {});
    expect(events).toEqual([]);
    channel.plug(GENERATION + 1, 0);
    expect(sent()).toHaveLength(1);
  });

  it('is forgotten with a glue that goes: the next one is told of it anew', () => {
    sent();
    channel.detach(session);
    channel.attach(session, 'glue');
    channel.plug(GENERATION, 0);
    expect(sent().map(({ command }) => command)).toEqual([HotplugCommand.vfPlug]);
  });
});

describe('an answer to VfPlug', () => {
  beforeEach(() => {
    channel.attach(session, 'glue');
    channel.plug(GENERATION, 1);
    sent();
  });

  it('counts for its VF and its generation', () => {
    answer(HotplugCommand.vfPlug, { vfIndex: 1 });
    expect(events).toEqual([{ type: 'plugAnswered', vfIndex: 1, generation: GENERATION }]);
    expect(plugged).toEqual([1]);
  });

  it('counts once', () => {
    answer(HotplugCommand.vfPlug, { vfIndex: 1 });
    answer(HotplugCommand.vfPlug, { vfIndex: 1 });
    expect(events).toHaveLength(1);
  });

  it.each<[string, Partial<HotplugReply>]>([
    ['another VF', { vfIndex: 0 }],
    ['an earlier generation', { vfIndex: 1, generation: GENERATION - 1 }],
    ['a later generation', { vfIndex: 1, generation: GENERATION + 1 }],
  ])('about %s changes nothing, and the right one still counts', (_, reply) => {
    answer(HotplugCommand.vfPlug, reply);
    expect(events).toEqual([]);
    answer(HotplugCommand.vfPlug, { vfIndex: 1 });
    expect(events).toHaveLength(1);
  });

  it('that refuses says why, in words or by errno', () => {
    answer(HotplugCommand.vfPlug, { vfIndex: 1, result: 'refused', errno: Errno.ENOMEM });
    expect(events).toMatchObject([{ refusal: 'ENOMEM' }]);
    expect(plugged).toEqual([]);
  });

  it('by an error reply is a refusal with the header’s errno', () => {
    const flags = HeaderFlag.reply;
    const command = HotplugCommand.vfPlug;
    session.receive(encodeFrame({ id: lastId, command, flags, error: Errno.ENOTSUP }), []);
    expect(events).toMatchObject([{ vfIndex: 1, refusal: 'answered ENOTSUP' }]);
  });

  it.each<[string, Uint8Array]>([
    ['that is no protobuf', Uint8Array.of(0xff, 0xff, 0xff)],
    ['with an unknown result', Uint8Array.of(0x18, 0x63)],
  ])('%s is a refusal', (_, body) => {
    const flags = HeaderFlag.reply;
    session.receive(encodeFrame({ id: lastId, command: HotplugCommand.vfPlug, flags }, body), []);
    expect(events).toMatchObject([{ type: 'plugAnswered', vfIndex: 1 }]);
    expect(events[0]).toHaveProperty('refusal');
  });

  it('that does not come is settled by the client’s going, not by an answer of its own', () => {
    session.close();
    expect(events).toEqual([]);
    channel.detach(session);
    expect(events).toEqual([{ type: 'peerDetached' }]);
  });
});

describe('nobody at the other end', () => {
  it('is no reason to fail: announcements go nowhere', () => {
    channel.beginEnable(GENERATION, 1);
    channel.place(GENERATION, 1);
    channel.plug(GENERATION, 0);
    channel.unplug(GENERATION, 0, 2000, 'guestDisabled');
    channel.endEnable(GENERATION, 'failed', '');
    expect(events).toEqual([]);
    expect(channel.role).toBeUndefined();
  });
});
