import { mkdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { HostError } from '../../../backend/device/physical-device.ts';
import { lastWord } from '../../../protocol/last-word.ts';
import { UserError } from '../../../protocol/user-error.ts';

function thrownBy(work: () => unknown): unknown {
  try {
    return work();
  } catch (error) {
    return error;
  }
}

it.each([
  [new UserError('no such user', 'name one', 2), 'no such user; name one', 2],
  [new HostError('open', 16, '/dev/vfio/7', 'busy', 'end it'), 'open /dev/vfio/7: busy; end it', 1],
  [new HostError('read', 5, '/x', 'it is gone'), 'read /x: it is gone; see dmesg', 1],
  [new UserError('text \u001b[2J', 'a\nb'), 'text \\u001b[2J; a\\u000ab', 1],
])('%s ends a command with its cause and its fix', (error, line, exitCode) => {
  expect(lastWord(error)).toEqual({ line, exitCode });
});

it("a system call of Node's that failed is told with its path", () => {
  expect(lastWord(thrownBy(() => readFileSync('/no/such')))).toEqual({
    line: 'open /no/such: no such file or directory (ENOENT); check that it exists, and that this user may use it',
    exitCode: 1,
  });
  expect(lastWord(thrownBy(() => mkdirSync('/proc/self/status/x'))).line).toContain('ENOTDIR');
});

it('a fault of ours is one line that says where', () => {
  const { line, exitCode } = lastWord(new TypeError('x is\nundefined'));
  expect(line).toMatch(
    /^a fault of this program: TypeError: x is\\u000aundefined \(at last-word\.test\.ts:\d+:\d+, .*\); please report it$/,
  );
  expect(exitCode).toBe(1);
  expect(lastWord('text').line).toBe('a fault of this program: text; please report it');
});
