import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HeaderFlag } from '../../../protocol/vfio-user/messages.ts';
import { SERVER_COMMAND, SessionUnderTest, Test } from './session-under-test.ts';

let its: SessionUnderTest;

beforeEach(() => {
  its = new SessionUnderTest();
});
afterEach(() => {
  its.close();
});

describe('the server’s own commands', () => {
  it('have ids of their own, from 1, and want a reply if somebody waits for it', () => {
    its.session.command(SERVER_COMMAND, Uint8Array.of(7), [], () => true);
    its.session.command(SERVER_COMMAND, new Uint8Array(0), []);
    expect(its.connection.takeSent()).toMatchObject([
      { id: 1, isReply: false, noReply: false, body: Uint8Array.of(7) },
      { id: 2, noReply: true },
    ]);
  });

  it('never use the id of one that is unanswered again', () => {
    its.session.command(SERVER_COMMAND, new Uint8Array(0), [], () => true);
    for (let i = 0; i < 0xffff; i++) {
      its.session.command(SERVER_COMMAND, new Uint8Array(0), []);
    }
    expect(new Set(its.connection.takeSent().map(({ id }) => id)).size).toBe(0xffff);
    its.session.command(SERVER_COMMAND, new Uint8Array(0), [], () => true);
    expect(its.connection.takeSent()[0]?.id).not.toBe(1);
  });

  it('take an answer once, for the right id and the right command', () => {
    const answers: number[] = [];
    its.session.command(SERVER_COMMAND, new Uint8Array(0), [], (frame) => {
      answers.push(frame?.error ?? -1);
      return true;
    });
    its.send(SERVER_COMMAND, { id: 2, flags: HeaderFlag.reply });
    its.send(SERVER_COMMAND + 1, { id: 1, flags: HeaderFlag.reply });
    expect(answers).toEqual([]);
    its.send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    its.send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    expect(answers).toEqual([0]);
    expect(its.log.filter((line) => /nothing asked for/.test(line))).toHaveLength(3);
    expect(its.connection.takeSent()).toHaveLength(1);
  });

  it('stay outstanding when an answer turns out to be about something else', () => {
    let asked = 0;
    its.session.command(SERVER_COMMAND, new Uint8Array(0), [], () => ++asked === 2);
    its.send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    its.send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    its.send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    expect(asked).toBe(2);
  });

  it('are told when the client goes without answering', () => {
    const answers: unknown[] = [];
    its.session.command(SERVER_COMMAND, new Uint8Array(0), [], (frame) => answers.push(frame) > 0);
    its.session.disconnected();
    its.session.disconnected();
    expect(answers).toEqual([undefined]);
  });

  it('do not end the session by a fault in what takes the answer', () => {
    its.session.command(SERVER_COMMAND, new Uint8Array(0), [], () => {
      throw new TypeError('a fault');
    });
    its.send(SERVER_COMMAND, { id: 1, flags: HeaderFlag.reply });
    expect(its.log.at(-1)).toMatch(/a fault of this program/);
    its.send(Test.echo);
    expect(its.errorsSent()).toEqual([0, 0]);
  });
});
