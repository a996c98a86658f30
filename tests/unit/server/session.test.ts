import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HostError } from '../../../backend/device/physical-device.ts';
import type { Endpoint, HotplugEndpoint } from '../../../backend/hotplug/endpoint.ts';
import { HANDLERS } from '../../../backend/server/handlers.ts';
import {
  type Handlers,
  LATER,
  MAX_DATA_BYTES,
  type Request,
  Session,
} from '../../../backend/server/session.ts';
import { Errno, WireError } from '../../../protocol/errno.ts';
import { HotplugCommand } from '../../../protocol/hotplug/codec.ts';
import { logInto } from '../../../protocol/log.ts';
import { createEventFd } from '../../../protocol/unix/eventfd.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { Command } from '../../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import { HeaderFlag } from '../../../protocol/vfio-user/messages.ts';
import { type Capabilities, encodeVersion } from '../../../protocol/vfio-user/negotiation.ts';
import { RecordingConnection } from '../../fakes/recording-connection.ts';
import { AS_QEMU, DeviceUnderTest } from '../device/device-under-test.ts';
import { openFds } from '../protocol/unix/open-fds.ts';

/** Commands of the handlers below, which do what their names say. */
const Test = {
  echo: 1,
  takeFds: 2,
  refuse: 3,
  hostFails: 4,
  breaks: 5,
  later: 6,
  fdReply: 7,
} as const;
const ROLES = ['new', 'device'] as const;
const SERVER_COMMAND = 0x8001;

let before: number;
/** Open fds while nothing is going on. */
let idle: number;
let device: DeviceUnderTest;
let connection: RecordingConnection;
let session: Session;
/** What a session's turn is measured by: so much passes with each message. */
let now: number;
let messageMilliseconds: number;
let log: string[];
/** Commands in the order in which they were handled. */
let handled: number[];
let taken: number[];

const TEST_HANDLERS: Handlers = Object.fromEntries(
  Object.values(Test).map((command) => [command, { roles: ROLES, handle: perform }]),
);

function perform(its: Session, { command, body, takeFds, fds }: Request): number {
  handled.push(command);
  switch (command) {
    case Test.takeFds:
      taken.push(...takeFds());
      return 0;
    case Test.refuse:
      throw new WireError('ENOSPC', `no room for ${fds.length} fds`);
    case Test.hostFails:
      throw new HostError('VFIO_DEVICE_RESET', Errno.EAGAIN, 'function 0', 'busy');
    case Test.breaks:
      throw new TypeError('a fault');
    case Test.later:
      return LATER;
    case Test.fdReply:
      its.attachFd(99);
      if (body[0] === 1) {
        throw new WireError('EINVAL', 'after it attached an fd');
      }
      return 0;
    default:
      its.reply.set(body);
      return body.length;
  }
}

beforeEach(() => {
  now = 0;
  messageMilliseconds = 0;
  before = openFds();
  device = new DeviceUnderTest();
  idle = openFds();
  log = [];
  handled = [];
  taken = [];
  open({}, TEST_HANDLERS);
});
afterEach(() => {
  session.close();
  device.close();
  expect(openFds()).toBe(before);
});

function open(more: Partial<Endpoint> = {}, handlers: Handlers = HANDLERS): void {
  connection = new RecordingConnection();
  const endpoint: Endpoint = { function: device.pf, native: false, ...more };
  session = new Session(
    connection,
    endpoint,
    handlers,
    logInto((level, message) => log.push(`${level}: ${message}`)),
    {
      now() {
        now += messageMilliseconds;
        return now;
      },
    },
  );
}

interface Sent {
  readonly id?: number;
  readonly flags?: number;
  readonly fds?: readonly number[];
  readonly body?: readonly number[];
}

function send(command: number, { id = 1, flags = 0, fds = [], body = [] }: Sent = {}): void {
  session.receive(encodeFrame({ id, command, flags }, Uint8Array.from(body)), fds);
}

function errorsSent(): number[] {
  return connection.takeSent().map(({ error }) => error);
}

function eventFds(count: number): number[] {
  return Array.from({ length: count }, createEventFd);
}

describe('a reply', () => {
  it('carries the id and the command of what it answers, and the handler’s body', () => {
    send(Test.echo, { id: 77, body: [1, 2, 3] });
    expect(connection.takeSent()).toMatchObject([
      { id: 77, command: Test.echo, isReply: true, error: 0, body: Uint8Array.of(1, 2, 3) },
    ]);
  });

  it('is not sent where none is wanted, whether it went well or not', () => {
    send(Test.echo, { flags: HeaderFlag.noReply });
    send(Test.refuse, { flags: HeaderFlag.noReply });
    send(999, { flags: HeaderFlag.noReply });
    expect(connection.takeSent()).toEqual([]);
    expect(handled).toEqual([Test.echo, Test.refuse]);
  });

  it('carries the fds that the handler attached, and an error reply none of them', () => {
    send(Test.fdReply);
    send(Test.fdReply, { body: [1] });
    send(Test.echo);
    expect(connection.takeSent().map(({ fds }) => fds)).toEqual([[99], [], []]);
  });
});

describe('fds of a reply that is not wanted', () => {
  it('do not go with the next one', () => {
    for (let i = 0; i < 70; i++) {
      send(Test.fdReply, { flags: HeaderFlag.noReply });
    }
    send(Test.echo);
    send(Test.fdReply);
    expect(connection.takeSent().map(({ fds }) => fds)).toEqual([[], [99]]);
  });
});

describe('an error', () => {
  it.each([
    ['of the client', Test.refuse, Errno.ENOSPC],
    ['of the host', Test.hostFails, Errno.EAGAIN],
    ['of ours', Test.breaks, Errno.EIO],
    ['of an unknown command', 999, Errno.ENOSYS],
  ])('%s is answered by its errno and 16 bytes', (_, command, errno) => {
    send(command, { id: 5 });
    expect(connection.takeSent()).toMatchObject([
      {
        id: 5,
        command,
        error: errno,
        flags: HeaderFlag.reply | HeaderFlag.error,
        body: new Uint8Array(0),
      },
    ]);
  });

  it('of ours is logged with its stack, and the session goes on', () => {
    send(Test.breaks);
    send(Test.echo);
    expect(log.filter((line) => line.startsWith('error'))).toEqual([
      expect.stringMatching(/a fault of this program/),
    ]);
    expect(errorsSent()).toEqual([Errno.EIO, 0]);
  });

  it('in the framing is answered, and ends the session', () => {
    const broken = encodeFrame({ id: 9, command: Test.echo, flags: 0 });
    new DataView(broken.buffer).setUint32(4, 15, true);
    session.receive(broken, eventFds(2));
    expect(connection.takeSent()).toMatchObject([{ id: 9, error: Errno.EINVAL }]);
    expect(connection.isClosed).toBe(true);
    expect(session.isOpen).toBe(false);
  });

  it('is a message of more than the largest data: it is not waited for', () => {
    const huge = encodeFrame({ id: 9, command: Test.echo, flags: 0 });
    new DataView(huge.buffer).setUint32(4, MAX_DATA_BYTES + 8192, true);
    session.receive(huge, []);
    expect(errorsSent()).toEqual([Errno.EMSGSIZE]);
    expect(session.isOpen).toBe(false);
  });

  it.each([2, 5, 15])('is a message of type %i, which is neither command nor reply', (type) => {
    send(Test.echo, { flags: type });
    expect(errorsSent()).toEqual([Errno.EINVAL]);
    expect(handled).toEqual([]);
  });
});

describe('fds that come with a message', () => {
  it('are the handler’s if it takes them', () => {
    const fds = eventFds(2);
    send(Test.takeFds, { fds });
    expect(taken).toEqual(fds);
    expect(openFds()).toBe(idle + 2);
    session.endpoint.function.setIrqs({
      index: 2,
      start: 0,
      count: 2,
      flags: 0x24,
      eventFds: taken,
    });
    session.endpoint.function.interrupts.clear(undefined, () => {});
  });

  it.each([
    ['a command that takes none', Test.echo],
    ['a command that fails', Test.refuse],
    ['a command that breaks', Test.breaks],
    ['an unknown command', 999],
    ['a command that is answered later', Test.later],
  ])('are closed after %s', (_, command) => {
    send(command, { fds: eventFds(3) });
    expect(openFds()).toBe(idle);
  });

  it('are closed with a reply that nothing asked for, and with one that something did', () => {
    send(Test.echo, { flags: HeaderFlag.reply, fds: eventFds(1) });
    session.command(SERVER_COMMAND, new Uint8Array(0), [], () => true);
    send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply, fds: eventFds(1) });
    expect(openFds()).toBe(idle);
  });

  it('are closed when the session ends before the rest of their message has come', () => {
    const whole = encodeFrame({ id: 1, command: Test.echo, flags: 0 }, new Uint8Array(8));
    session.receive(whole.subarray(0, 20), eventFds(2));
    session.disconnected();
    expect(openFds()).toBe(idle);
  });

  it('are closed when the session ends while their message waits', () => {
    send(Test.later);
    send(Test.takeFds, { fds: eventFds(2) });
    session.disconnected();
    expect(openFds()).toBe(idle);
    expect(taken).toEqual([]);
  });

  it('are closed when they come after the end', () => {
    session.close();
    send(Test.takeFds, { fds: eventFds(2) });
    expect(openFds()).toBe(idle);
  });
});

/** Gives it turns until it has been answered in full. */
function turns(): number[] {
  const done: number[] = [];
  while (session.isBehind) {
    connection.isCalledLater = false;
    session.resume();
    done.push(handled.length);
  }
  return done;
}

describe('messages behind a reply that takes its time', () => {
  it('wait for it, and are answered in order', () => {
    send(Test.later, { id: 1 });
    send(Test.echo, { id: 2, body: [2] });
    send(Test.echo, { id: 3, body: [3] });
    expect(handled).toEqual([Test.later]);
    expect(session.busy).toBe(true);
    session.complete(undefined, Uint8Array.of(1));
    expect(connection.takeSent().map(({ id, body }) => [id, ...body])).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
    ]);
  });

  it('wait for the next one that takes its time as well', () => {
    for (const id of [1, 2, 3]) {
      send(Test.later, { id });
    }
    session.complete(undefined, new Uint8Array(0));
    expect(connection.takeSent().map(({ id }) => id)).toEqual([1]);
    session.complete(new HostError('reset', Errno.EAGAIN, 'pf', 'busy'), new Uint8Array(0));
    expect(connection.takeSent()).toMatchObject([{ id: 2, error: Errno.EAGAIN }]);
  });

  it('keep their bytes, although they came in a buffer that is used again', () => {
    const chunk = encodeFrame({ id: 2, command: Test.echo, flags: 0 }, Uint8Array.of(5, 6));
    send(Test.later, { id: 1 });
    session.receive(chunk, []);
    chunk.fill(0);
    session.complete(undefined, new Uint8Array(0));
    expect(connection.takeSent()[1]?.body).toEqual(Uint8Array.of(5, 6));
  });

  it('are not answered when the client has gone meanwhile', () => {
    send(Test.later);
    send(Test.echo);
    session.disconnected();
    session.complete(undefined, new Uint8Array(0));
    expect(connection.takeSent()).toEqual([]);
    expect(handled).toEqual([Test.later]);
  });

  it('do not hold up a reply to the server’s own command, which may be what everybody waits for', () => {
    let answered = false;
    session.command(SERVER_COMMAND, new Uint8Array(0), [], () => {
      answered = true;
      return true;
    });
    send(Test.later, { id: 1 });
    send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    expect(answered).toBe(true);
  });

  it('stop the receiving when they are many, until they are answered', () => {
    const body = new Array(60 * 1024).fill(0);
    send(Test.later);
    for (let i = 0; i < 5; i++) {
      send(Test.echo, { body });
    }
    expect(connection.isHeld).toBe(true);
    session.complete(undefined, new Uint8Array(0));
    expect(connection.isHeld).toBe(false);
    expect(handled).toHaveLength(6);
  });
});

describe('a client that asks for much at once', () => {
  const echo = (count: number, flags = 0): Uint8Array =>
    Buffer.concat(
      Array.from({ length: count }, (_, index) =>
        encodeFrame({ id: index + 1, command: Test.echo, flags }),
      ),
    );
  it('has a bounded part of it done in one turn, and the rest in turns of their own, in order', () => {
    session.receive(echo(1000), []);
    expect(handled.length).toBeLessThanOrEqual(64);
    expect(connection.isCalledLater).toBe(true);
    expect(connection.isHeld).toBe(true);
    const done = turns();
    expect(done.length).toBeGreaterThanOrEqual(Math.floor(1000 / 64));
    expect(connection.sent.map(({ id }) => id)).toEqual(
      Array.from({ length: 1000 }, (_, index) => index + 1),
    );
    expect(connection.isHeld).toBe(false);
  });

  it('has its turn end early where a message takes long', () => {
    messageMilliseconds = 0.6;
    session.receive(echo(20), []);
    messageMilliseconds = 0;
    expect(handled.length).toBeLessThan(5);
    turns();
    expect(handled).toHaveLength(20);
  });

  it('waits for a reply that takes its time as everybody does, and goes on afterwards', () => {
    const later = encodeFrame({ id: 7000, command: Test.later, flags: 0 });
    session.receive(Buffer.concat([echo(100), later, echo(10)]), []);
    turns();
    expect(handled).toHaveLength(101);
    expect(connection.isHeld).toBe(false);
    session.complete(undefined, new Uint8Array(0));
    turns();
    expect(handled).toHaveLength(111);
  });

  it('may not have more than a few fds wait', () => {
    send(Test.later);
    let messages = 0;
    while (!connection.isHeld) {
      send(Test.takeFds, { fds: eventFds(16) });
      messages++;
    }
    expect(messages * 16).toBeLessThanOrEqual(80);
    session.complete(undefined, new Uint8Array(0));
    taken.forEach(closeFd);
  });

  it('sends replies that nobody asked for: the log has some of them', () => {
    const reply = encodeFrame({ id: 1, command: SERVER_COMMAND, flags: HeaderFlag.reply });
    session.receive(Buffer.concat(Array.from({ length: 5000 }, () => reply)), []);
    expect(log.length).toBeLessThanOrEqual(64);
    expect(session.isOpen).toBe(true);
  });
});

describe('a client that has not said VERSION', () => {
  /** The start of a message that says it is so long. */
  function begin(bytes: number): void {
    const head = encodeFrame({ id: 1, command: Command.version, flags: 0 });
    new DataView(head.buffer).setUint32(4, bytes, true);
    session.receive(head, []);
  }

  it('may begin a message of 64 KiB', () => {
    open();
    begin(64 * 1024);
    expect(session.isOpen).toBe(true);
  });

  it('is given up where it begins a longer one', () => {
    open();
    begin(64 * 1024 + 1);
    expect(connection.sent.at(-1)).toMatchObject({ error: Errno.EMSGSIZE });
    expect(session.isOpen).toBe(false);
  });

  it('may send what is as long as all data once it has', () => {
    open();
    send(Command.version, { body: [...encodeVersion(0, 1, {})] });
    begin(MAX_DATA_BYTES);
    expect(session.isOpen).toBe(true);
  });
});

describe('a client that does not read', () => {
  it('is answered no further until it does', () => {
    send(Test.echo, { id: 1 });
    connection.congested = true;
    send(Test.echo, { id: 2 });
    send(Test.echo, { id: 3 });
    expect(handled).toHaveLength(1);
    connection.congested = false;
    session.resume();
    expect(connection.takeSent().map(({ id }) => id)).toEqual([1, 2, 3]);
  });

  it('and whose answer comes late as well is answered when both are over', () => {
    send(Test.later, { id: 1 });
    send(Test.echo, { id: 2 });
    connection.congested = true;
    session.complete(undefined, new Uint8Array(0));
    expect(handled).toEqual([Test.later]);
    connection.congested = false;
    session.resume();
    expect(handled).toEqual([Test.later, Test.echo]);
  });
});

describe('the server’s own commands', () => {
  it('have ids of their own, from 1, and want a reply if somebody waits for it', () => {
    session.command(SERVER_COMMAND, Uint8Array.of(7), [], () => true);
    session.command(SERVER_COMMAND, new Uint8Array(0), []);
    expect(connection.takeSent()).toMatchObject([
      { id: 1, isReply: false, noReply: false, body: Uint8Array.of(7) },
      { id: 2, noReply: true },
    ]);
  });

  it('never use the id of one that is unanswered again', () => {
    session.command(SERVER_COMMAND, new Uint8Array(0), [], () => true);
    for (let i = 0; i < 0xffff; i++) {
      session.command(SERVER_COMMAND, new Uint8Array(0), []);
    }
    expect(new Set(connection.takeSent().map(({ id }) => id)).size).toBe(0xffff);
    session.command(SERVER_COMMAND, new Uint8Array(0), [], () => true);
    expect(connection.takeSent()[0]?.id).not.toBe(1);
  });

  it('take an answer once, for the right id and the right command', () => {
    const answers: number[] = [];
    session.command(SERVER_COMMAND, new Uint8Array(0), [], (frame) => {
      answers.push(frame?.error ?? -1);
      return true;
    });
    send(SERVER_COMMAND, { id: 2, flags: HeaderFlag.reply });
    send(SERVER_COMMAND + 1, { id: 1, flags: HeaderFlag.reply });
    expect(answers).toEqual([]);
    send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    expect(answers).toEqual([0]);
    expect(log.filter((line) => /nothing asked for/.test(line))).toHaveLength(3);
    expect(connection.takeSent()).toHaveLength(1);
  });

  it('stay outstanding when an answer turns out to be about something else', () => {
    let asked = 0;
    session.command(SERVER_COMMAND, new Uint8Array(0), [], () => ++asked === 2);
    send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    expect(asked).toBe(2);
  });

  it('are told when the client goes without answering', () => {
    const answers: unknown[] = [];
    session.command(SERVER_COMMAND, new Uint8Array(0), [], (frame) => answers.push(frame) > 0);
    session.disconnected();
    session.disconnected();
    expect(answers).toEqual([undefined]);
  });

  it('do not end the session by a fault in what takes the answer', () => {
    session.command(SERVER_COMMAND, new Uint8Array(0), [], () => {
      throw new TypeError('a fault');
    });
    send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    expect(log.at(-1)).toMatch(/a fault of this program/);
    send(Test.echo);
    expect(errorsSent()).toEqual([0, 0]);
  });
});

describe('what a connection may ask', () => {
  let attached: string[];
  let hotplug: HotplugEndpoint;
  const AS_GLUE: Capabilities = { sriov_hotplug: { version: 1, role: 'glue' } };
  const AS_VMM: Capabilities = { sriov_hotplug: { version: 1, role: 'vmm' } };
  const AS_OBSERVER: Capabilities = { sriov_status: { version: 1 } };

  beforeEach(() => {
    attached = [];
    hotplug = {
      attach: (_session, role) => {
        if (attached.length > 0) {
          throw new WireError('EBUSY', 'somebody has it');
        }
        attached.push(role);
      },
      detach: () => attached.pop(),
    };
    open({ hotplug, status: () => '{"phase":"disabled"}' });
  });

  function negotiate(capabilities: Capabilities): number {
    const body = [...encodeVersion(0, 1, capabilities)];
    send(Command.version, { body });
    return errorsSent()[0]!;
  }

  function ask(command: number): number {
    send(command, { body: [16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] });
    return errorsSent()[0]!;
  }

  it('is VERSION, before anything else', () => {
    expect(ask(Command.deviceGetInfo)).toBe(Errno.EINVAL);
    expect(negotiate({})).toBe(0);
    expect(ask(Command.deviceGetInfo)).toBe(0);
  });

  it('is VERSION once', () => {
    negotiate({});
    expect(negotiate(AS_GLUE)).not.toBe(0);
    expect(session.role).toBe('device');
    expect(attached).toEqual([]);
    expect(ask(Command.deviceGetInfo)).toBe(0);
  });

  it('of a glue is its own business alone', () => {
    expect(negotiate(AS_GLUE)).toBe(0);
    expect(device.pf.attached).toBe(false);
    expect(ask(Command.deviceGetInfo)).toBe(Errno.EPERM);
    expect(ask(HotplugCommand.getStatus)).toBe(Errno.EPERM);
  });

  it('of an observer is the status', () => {
    expect(negotiate(AS_OBSERVER)).toBe(0);
    expect(device.pf.attached).toBe(false);
    expect(ask(Command.deviceReset)).toBe(Errno.EPERM);
    send(HotplugCommand.getStatus);
    expect(new TextDecoder().decode(connection.takeSent()[0]!.body)).toBe('{"phase":"disabled"}');
  });

  it('of a VMM with hot-plug is the device', () => {
    expect(negotiate(AS_VMM)).toBe(0);
    expect(device.pf.attached).toBe(true);
    expect(attached).toEqual(['vmm']);
    expect(ask(Command.deviceGetInfo)).toBe(0);
  });

  it('is nothing yet after a VERSION that was refused, and can be proposed anew without hot-plug', () => {
    attached.push('somebody else');
    expect(negotiate(AS_GLUE)).toBe(Errno.EBUSY);
    expect(negotiate({})).toBe(0);
    expect(session.role).toBe('device');
    expect(ask(Command.deviceGetInfo)).toBe(0);
  });

  it('gives the device back where hot-plug is refused', () => {
    attached.push('somebody else');
    expect(negotiate(AS_VMM)).toBe(Errno.EBUSY);
    expect(device.pf.attached).toBe(false);
  });

  it('ends with the connection: hot-plug and device are free again', () => {
    negotiate(AS_VMM);
    session.disconnected();
    expect(attached).toEqual([]);
    expect(device.pf.attached).toBe(false);
  });

  it('that comes or goes as a bystander touches nothing of the device', () => {
    device.pf.attach(AS_QEMU);
    const { cleared } = device;
    negotiate(AS_OBSERVER);
    session.disconnected();
    expect(device.cleared).toBe(cleared);
    expect(device.pf.attached).toBe(true);
  });
});
