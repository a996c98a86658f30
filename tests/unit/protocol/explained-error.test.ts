import { expect, it } from 'vitest';
import { HostError } from '../../../backend/device/physical-device.ts';
import { sentenceOf, situationOf } from '../../../protocol/explained-error.ts';
import { SyscallError } from '../../../protocol/unix/libc.ts';
import { UserError } from '../../../protocol/user-error.ts';

it.each([
  [{ what: 'no such user' }, 'no such user'],
  [{ what: 'no such user', fix: 'name one' }, 'no such user; name one'],
  [{ what: 'busy', call: 'open', path: '/dev/x', fix: 'end it' }, 'open /dev/x: busy; end it'],
  [{ what: 'busy', call: 'open' }, 'open: busy'],
  [{ what: 'busy', call: 'open', path: '', fix: '' }, 'open: busy'],
])('%j reads as a sentence', (explanation, sentence) => {
  expect(sentenceOf(explanation)).toBe(sentence);
});

it.each([
  [new UserError('no such user', 'name one'), 'no such user'],
  [new HostError('open', 16, '/dev/x', 'busy', 'end it'), 'open /dev/x: busy'],
  [new SyscallError('bind', 13, '/x', 'ask'), 'bind /x: permission denied (EACCES)'],
  [new TypeError('no function'), 'no function'],
  ['text', 'text'],
])('the situation of %s leaves its fix out', (error, situation) => {
  expect(situationOf(error)).toBe(situation);
});

it('an error carries its parts', () => {
  expect(new HostError('open', 16, '/dev/x', 'busy', 'end it')).toMatchObject({
    name: 'HostError',
    call: 'open',
    errno: 16,
    path: '/dev/x',
    what: 'busy',
    fix: 'end it',
    message: 'open /dev/x: busy; end it',
  });
});
