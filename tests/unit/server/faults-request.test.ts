// What Faults takes: a small JSON object, and nothing that costs other clients their time.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LONGEST_FAULTS_REQUEST } from '../../../backend/server/handlers/observing.ts';
import { Errno } from '../../../protocol/errno.ts';
import { HotplugCommand } from '../../../protocol/hotplug/commands.ts';
import { Command } from '../../../protocol/vfio-user/commands.ts';
import { encodeVersion } from '../../../protocol/vfio-user/version.ts';
import { SessionUnderTest } from './session-under-test.ts';

let its: SessionUnderTest;
let added: string[];

beforeEach(() => {
  added = [];
  its = new SessionUnderTest();
  its.open({
    status: () => '{}',
    faults: {
      status: [],
      add: (text) => {
        added.push(text);
        return undefined;
      },
      clear: () => true,
    },
  });
  its.send(Command.version, {
    body: [...encodeVersion(0, 1, { sriov_status: { version: 1 } })],
  });
  its.errorsSent();
});
afterEach(() => {
  its.close();
});

function ask(text: string): number[] {
  its.send(HotplugCommand.faults, { body: [...new TextEncoder().encode(text)] });
  return its.errorsSent();
}

const padded = (bytes: number): string => '{"add":"flr:hang"}'.padEnd(bytes);

describe('Faults', () => {
  it.each(['null', '5', '[]', '"flr:hang"', 'true', '', '{', '{"add":5}', '{"clear":"1"}'])(
    'answers %s, which is no request, with EINVAL, and calls it no fault of its own',
    (text) => {
      expect(ask(text)).toEqual([Errno.EINVAL]);
      expect(its.log.filter((line) => line.startsWith('error'))).toEqual([]);
    },
  );

  it('takes an empty object, and a rule', () => {
    expect(ask('{}')).toEqual([0]);
    expect(ask('{"add":"flr:hang"}')).toEqual([0]);
    expect(added).toEqual(['flr:hang']);
  });

  it('takes so many bytes, and not one more', () => {
    expect(ask(padded(LONGEST_FAULTS_REQUEST))).toEqual([0]);
    expect(ask(padded(LONGEST_FAULTS_REQUEST + 1))).toEqual([Errno.EINVAL]);
  });
});
