import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type NetConnectOpts } from 'node:net';
import { describe, expect, it } from 'vitest';
import { HostError } from '../../../backend/device/physical-device.ts';
import { fixOf, sentenceOf, situationOf } from '../../../protocol/explained-error.ts';
import { SyscallError } from '../../../protocol/unix/syscall-error.ts';
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

describe('a system call of Node’s that failed is told by its errno, not by Node’s sentence:', () => {
  it('a file’s', () => {
    let error: unknown;
    try {
      openSync('/nowhere/file', 'r');
    } catch (reason) {
      error = reason;
    }
    expect(situationOf(error)).toBe('open /nowhere/file: no such file or directory (ENOENT)');
  });

  it('a socket’s, with its path or its port', async () => {
    const server = createServer();
    const connecting = (where: NetConnectOpts): Promise<unknown> =>
      new Promise((resolve) => connect(where).once('error', resolve));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    expect(situationOf(await connecting({ path: '/nowhere/socket' }))).toBe(
      'connect /nowhere/socket: no such file or directory (ENOENT)',
    );
    expect(situationOf(await connecting({ port, host: '127.0.0.1' }))).toBe(
      `connect 127.0.0.1:${port}: connection refused (ECONNREFUSED)`,
    );
  });

  it('a program’s, which is named once', async () => {
    const [error] = await once(spawn('/nowhere/program'), 'error').catch((reason) => [reason]);
    expect(situationOf(error)).toBe('spawn /nowhere/program: no such file or directory (ENOENT)');
  });
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

it.each([
  [new UserError('no such user', 'name one'), 'name one'],
  [new SyscallError('bind', 28, '/x'), 'make room there'],
  [new SyscallError('bind', 28, '/x', 'ask'), 'ask'],
  [new SyscallError('ioctl', 28), undefined],
  [new SyscallError('bind', 13, '/x'), undefined],
  [nodeError('EMFILE', -24), expect.stringContaining('ulimit -n')],
  [nodeError('ENOENT', -2), undefined],
  [new TypeError('no function'), undefined],
])('what helps against %s is known where it is the same whatever was asked', (error, fix) => {
  expect(fixOf(error)).toEqual(fix);
});

/** As Node's own calls throw it. */
function nodeError(code: string, errno: number): Error {
  return Object.assign(new Error(`${code}: why, open '/x'`), { code, errno, syscall: 'open' });
}
