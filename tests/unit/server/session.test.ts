import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MAX_DATA_BYTES } from '../../../backend/server/limits.ts';
import { Errno } from '../../../protocol/errno.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import { HeaderFlag } from '../../../protocol/vfio-user/messages.ts';
import { openFds } from '../protocol/unix/open-fds.ts';
import { eventFds, SERVER_COMMAND, SessionUnderTest, Test } from './session-under-test.ts';

let its: SessionUnderTest;

beforeEach(() => {
  its = new SessionUnderTest();
});
afterEach(() => {
  its.close();
});

describe('a reply', () => {
  it('carries the id and the command of what it answers, and the handler’s body', () => {
    its.send(Test.echo, { id: 77, body: [1, 2, 3] });
    expect(its.connection.takeSent()).toMatchObject([
      { id: 77, command: Test.echo, isReply: true, error: 0, body: Uint8Array.of(1, 2, 3) },
    ]);
  });

  it('is not sent where none is wanted, whether it went well or not', () => {
    its.send(Test.echo, { flags: HeaderFlag.noReply });
    its.send(Test.refuse, { flags: HeaderFlag.noReply });
    its.send(999, { flags: HeaderFlag.noReply });
    expect(its.connection.takeSent()).toEqual([]);
    expect(its.handled).toEqual([Test.echo, Test.refuse]);
  });

  it('carries the fds that the handler attached, and an error reply none of them', () => {
    its.send(Test.fdReply);
    its.send(Test.fdReply, { body: [1] });
    its.send(Test.echo);
    expect(its.connection.takeSent().map(({ fds }) => fds)).toEqual([[99], [], []]);
  });
});

describe('fds of a reply that is not wanted', () => {
  it('do not go with the next one', () => {
    for (let i = 0; i < 70; i++) {
      its.send(Test.fdReply, { flags: HeaderFlag.noReply });
    }
    its.send(Test.echo);
    its.send(Test.fdReply);
    expect(its.connection.takeSent().map(({ fds }) => fds)).toEqual([[], [99]]);
  });
});

describe('an error', () => {
  it.each([
    ['of the client', Test.refuse, Errno.ENOSPC],
    ['of the host', Test.hostFails, Errno.EAGAIN],
    ['of a system call', Test.lacksFds, Errno.EMFILE],
    ['of ours', Test.breaks, Errno.EIO],
    ['of an unknown command', 999, Errno.ENOSYS],
  ])('%s is answered by its errno and 16 bytes', (_, command, errno) => {
    its.send(command, { id: 5 });
    expect(its.connection.takeSent()).toMatchObject([
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
    its.send(Test.breaks);
    its.send(Test.echo);
    expect(its.log.filter((line) => line.startsWith('error'))).toEqual([
      expect.stringMatching(/a fault of this program/),
    ]);
    expect(its.errorsSent()).toEqual([Errno.EIO, 0]);
  });

  it('of a system call is told with its fix, and is no fault of ours', () => {
    its.send(Test.lacksFds);
    expect(its.log).toEqual([
      expect.stringMatching(/^error: .*fcntl: too many open files .*; raise/),
    ]);
  });

  it('in the framing is answered, and ends the session', () => {
    const broken = encodeFrame({ id: 9, command: Test.echo, flags: 0 });
    new DataView(broken.buffer).setUint32(4, 15, true);
    its.session.receive(broken, eventFds(2));
    expect(its.connection.takeSent()).toMatchObject([{ id: 9, error: Errno.EINVAL }]);
    expect(its.connection.isClosed).toBe(true);
    expect(its.session.isOpen).toBe(false);
  });

  it('is a message of more than the largest data: it is not waited for', () => {
    const huge = encodeFrame({ id: 9, command: Test.echo, flags: 0 });
    new DataView(huge.buffer).setUint32(4, MAX_DATA_BYTES + 8192, true);
    its.session.receive(huge, []);
    expect(its.errorsSent()).toEqual([Errno.EMSGSIZE]);
    expect(its.session.isOpen).toBe(false);
  });

  it.each([2, 5, 15])('is a message of type %i, which is neither command nor reply', (type) => {
    its.send(Test.echo, { flags: type });
    expect(its.errorsSent()).toEqual([Errno.EINVAL]);
    expect(its.handled).toEqual([]);
  });
});

describe('fds that come with a message', () => {
  it('are the handler’s if it takes them', () => {
    const fds = eventFds(2);
    its.send(Test.takeFds, { fds });
    expect(its.taken).toEqual(fds);
    expect(openFds()).toBe(its.idle + 2);
    its.session.endpoint.function.setIrqs({
      index: 2,
      start: 0,
      count: 2,
      flags: 0x24,
      eventFds: its.taken,
    });
    its.session.endpoint.function.interrupts.clear(undefined, () => {});
  });

  it.each([
    ['a command that takes none', Test.echo],
    ['a command that fails', Test.refuse],
    ['a command that breaks', Test.breaks],
    ['an unknown command', 999],
    ['a command that is answered later', Test.later],
  ])('are closed after %s', (_, command) => {
    its.send(command, { fds: eventFds(3) });
    expect(openFds()).toBe(its.idle);
  });

  it('are closed with a reply that nothing asked for, and with one that something did', () => {
    its.send(Test.echo, { flags: HeaderFlag.reply, fds: eventFds(1) });
    its.session.command(SERVER_COMMAND, new Uint8Array(0), [], () => true);
    its.send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply, fds: eventFds(1) });
    expect(openFds()).toBe(its.idle);
  });

  it('are closed when the session ends before the rest of their message has come', () => {
    const whole = encodeFrame({ id: 1, command: Test.echo, flags: 0 }, new Uint8Array(8));
    its.session.receive(whole.subarray(0, 20), eventFds(2));
    its.session.disconnected();
    expect(openFds()).toBe(its.idle);
  });

  it('are closed when the session ends while their message waits', () => {
    its.send(Test.later);
    its.send(Test.takeFds, { fds: eventFds(2) });
    its.session.disconnected();
    expect(openFds()).toBe(its.idle);
    expect(its.taken).toEqual([]);
  });

  it('are closed when they come after the end', () => {
    its.session.close();
    its.send(Test.takeFds, { fds: eventFds(2) });
    expect(openFds()).toBe(its.idle);
  });
});

describe('whoever observes', () => {
  const order: string[] = [];
  beforeEach(() => {
    order.length = 0;
    its.device.pf.observers.add({
      answered: (_name, command, _milliseconds, errno) => order.push(`${command}, ${errno}`),
      answering: () => order.push(`${its.connection.sent.length} sent`),
    });
  });

  it('hears of a message, and that it is about to be answered, before the client does', () => {
    its.send(Test.echo);
    its.send(Test.refuse);
    its.send(Test.later);
    its.session.complete(undefined, new Uint8Array(0));
    expect(order).toEqual([
      `${Test.echo}, 0`,
      '0 sent',
      `${Test.refuse}, ${Errno.ENOSPC}`,
      '1 sent',
      `${Test.later}, 0`,
      '2 sent',
    ]);
    expect(its.connection.sent).toHaveLength(3);
  });
});
