import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HostError } from '../../../backend/device/physical-device.ts';
import { MAX_DATA_BYTES } from '../../../backend/server/limits.ts';
import { Errno } from '../../../protocol/errno.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { Command } from '../../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../../protocol/vfio-user/framing.ts';
import { HeaderFlag } from '../../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../../protocol/vfio-user/version.ts';
import { eventFds, SERVER_COMMAND, SessionUnderTest, Test } from './session-under-test.ts';

let its: SessionUnderTest;

beforeEach(() => {
  its = new SessionUnderTest();
});
afterEach(() => {
  its.close();
});

/** Gives it turns until it has been answered in full. */
function turns(): number[] {
  const done: number[] = [];
  while (its.session.isBehind) {
    its.connection.isCalledLater = false;
    its.nextTurn();
    its.session.resume();
    done.push(its.handled.length);
  }
  return done;
}

describe('messages behind a reply that takes its time', () => {
  it('wait for it, and are answered in order', () => {
    its.send(Test.later, { id: 1 });
    its.send(Test.echo, { id: 2, body: [2] });
    its.send(Test.echo, { id: 3, body: [3] });
    expect(its.handled).toEqual([Test.later]);
    expect(its.session.busy).toBe(true);
    its.session.complete(undefined, Uint8Array.of(1));
    expect(its.connection.takeSent().map(({ id, body }) => [id, ...body])).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
    ]);
  });

  it('wait for the next one that takes its time as well', () => {
    for (const id of [1, 2, 3]) {
      its.send(Test.later, { id });
    }
    its.session.complete(undefined, new Uint8Array(0));
    expect(its.connection.takeSent().map(({ id }) => id)).toEqual([1]);
    its.session.complete(new HostError('reset', Errno.EAGAIN, 'pf', 'busy'), new Uint8Array(0));
    expect(its.connection.takeSent()).toMatchObject([{ id: 2, error: Errno.EAGAIN }]);
  });

  it('keep their bytes, although they came in a buffer that is used again', () => {
    const chunk = encodeFrame({ id: 2, command: Test.echo, flags: 0 }, Uint8Array.of(5, 6));
    its.send(Test.later, { id: 1 });
    its.session.receive(chunk, []);
    chunk.fill(0);
    its.session.complete(undefined, new Uint8Array(0));
    expect(its.connection.takeSent()[1]?.body).toEqual(Uint8Array.of(5, 6));
  });

  it('are not answered when the client has gone meanwhile', () => {
    its.send(Test.later);
    its.send(Test.echo);
    its.session.disconnected();
    its.session.complete(undefined, new Uint8Array(0));
    expect(its.connection.takeSent()).toEqual([]);
    expect(its.handled).toEqual([Test.later]);
  });

  it('do not hold up a reply to the server’s own command, which may be what everybody waits for', () => {
    let answered = false;
    its.session.command(SERVER_COMMAND, new Uint8Array(0), [], () => {
      answered = true;
      return true;
    });
    its.send(Test.later, { id: 1 });
    its.send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    expect(answered).toBe(true);
  });

  it('stop the receiving when they are many, until they are answered', () => {
    const body = new Array(60 * 1024).fill(0);
    its.send(Test.later);
    for (let i = 0; i < 5; i++) {
      its.send(Test.echo, { body });
    }
    expect(its.connection.isHeld).toBe(true);
    its.session.complete(undefined, new Uint8Array(0));
    expect(its.connection.isHeld).toBe(false);
    expect(its.handled).toHaveLength(6);
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
    its.session.receive(echo(1000), []);
    expect(its.handled.length).toBeLessThanOrEqual(64);
    expect(its.connection.isCalledLater).toBe(true);
    expect(its.connection.isHeld).toBe(true);
    const done = turns();
    expect(done.length).toBeGreaterThanOrEqual(Math.floor(1000 / 64));
    expect(its.connection.sent.map(({ id }) => id)).toEqual(
      Array.from({ length: 1000 }, (_, index) => index + 1),
    );
    expect(its.connection.isHeld).toBe(false);
  });

  it('has its turn end early where a message takes long', () => {
    its.messageMilliseconds = 0.6;
    its.session.receive(echo(20), []);
    its.messageMilliseconds = 0;
    expect(its.handled.length).toBeLessThan(5);
    turns();
    expect(its.handled).toHaveLength(20);
  });

  it('leaves others in the same turn as much time as there is, and one message each', () => {
    its.messageMilliseconds = 0.2;
    its.session.receive(echo(20), []);
    const first = its.handled.length;
    expect(first).toBeGreaterThan(1);
    const { session } = its;
    its.open({}, its.testHandlers);
    its.session.receive(echo(20), []);
    expect(its.handled.length - first).toBe(1);
    its.messageMilliseconds = 0;
    turns();
    expect(its.handled.length - first).toBe(20);
    session.close();
  });

  it('gets on by a message each turn where others have used up every one before it', () => {
    const { session } = its;
    its.open({}, its.testHandlers);
    its.messageMilliseconds = 0.3;
    session.receive(echo(40), []);
    its.session.receive(echo(5), []);
    const sent = [its.connection.sent.length];
    for (let turn = 1; turn < 5; turn++) {
      its.nextTurn();
      session.resume();
      its.session.resume();
      sent.push(its.connection.sent.length);
    }
    expect(sent).toEqual([1, 2, 3, 4, 5]);
    its.messageMilliseconds = 0;
    session.close();
  });

  it('waits for a reply that takes its time as everybody does, and goes on afterwards', () => {
    const later = encodeFrame({ id: 7000, command: Test.later, flags: 0 });
    its.session.receive(Buffer.concat([echo(100), later, echo(10)]), []);
    turns();
    expect(its.handled).toHaveLength(101);
    expect(its.connection.isHeld).toBe(false);
    its.session.complete(undefined, new Uint8Array(0));
    turns();
    expect(its.handled).toHaveLength(111);
  });

  it('and whose own reply, among it, is what the answer waits for, has nothing done twice', () => {
    its.session.command(SERVER_COMMAND, new Uint8Array(0), [], () => {
      its.session.complete(undefined, new Uint8Array(0));
      return true;
    });
    const later = encodeFrame({ id: 7000, command: Test.later, flags: 0 });
    const reply = encodeFrame({ id: 1, command: SERVER_COMMAND, flags: HeaderFlag.reply });
    // More than a turn's worth comes first, so that these are cut off the rest of it.
    its.session.receive(Buffer.concat([echo(50), later, echo(10), reply, echo(10)]), []);
    turns();
    expect(its.handled).toHaveLength(71);
    expect(its.session.busy).toBe(false);
  });

  it('may not have more than a few fds wait', () => {
    its.send(Test.later);
    let messages = 0;
    while (!its.connection.isHeld) {
      its.send(Test.takeFds, { fds: eventFds(16) });
      messages++;
    }
    expect(messages * 16).toBeLessThanOrEqual(80);
    its.session.complete(undefined, new Uint8Array(0));
    its.taken.forEach(closeFd);
  });

  it('sends replies that nobody asked for: the log has some of them', () => {
    const reply = encodeFrame({ id: 1, command: SERVER_COMMAND, flags: HeaderFlag.reply });
    its.session.receive(Buffer.concat(Array.from({ length: 5000 }, () => reply)), []);
    expect(its.log.length).toBeLessThanOrEqual(64);
    expect(its.session.isOpen).toBe(true);
  });
});

describe('a client that has not said VERSION', () => {
  /** The start of a message that says it is so long. */
  function begin(bytes: number): void {
    const head = encodeFrame({ id: 1, command: Command.version, flags: 0 });
    new DataView(head.buffer).setUint32(4, bytes, true);
    its.session.receive(head, []);
  }

  it('may begin a message of 64 KiB', () => {
    its.open();
    begin(64 * 1024);
    expect(its.session.isOpen).toBe(true);
  });

  it('is given up where it begins a longer one', () => {
    its.open();
    begin(64 * 1024 + 1);
    expect(its.connection.sent.at(-1)).toMatchObject({ error: Errno.EMSGSIZE });
    expect(its.session.isOpen).toBe(false);
  });

  it('may send what is as long as all data once it has', () => {
    its.open();
    its.send(Command.version, { body: [...encodeVersion(0, 1, {})] });
    begin(MAX_DATA_BYTES);
    expect(its.session.isOpen).toBe(true);
  });
});

describe('a client that does not read', () => {
  it('is answered no further until it does', () => {
    its.send(Test.echo, { id: 1 });
    its.connection.congested = true;
    its.send(Test.echo, { id: 2 });
    its.send(Test.echo, { id: 3 });
    expect(its.handled).toHaveLength(1);
    its.connection.congested = false;
    its.session.resume();
    expect(its.connection.takeSent().map(({ id }) => id)).toEqual([1, 2, 3]);
  });

  it('and whose answer comes late as well is answered when both are over', () => {
    its.send(Test.later, { id: 1 });
    its.send(Test.echo, { id: 2 });
    its.connection.congested = true;
    its.session.complete(undefined, new Uint8Array(0));
    expect(its.handled).toEqual([Test.later]);
    its.connection.congested = false;
    its.session.resume();
    expect(its.handled).toEqual([Test.later, Test.echo]);
  });
});
