// What goes over a wire wrong is known in parts, and told as a sentence made of them.
import { expect, it } from 'vitest';
import { Errno, WireError } from '../../../protocol/errno.ts';
import { type ExplainedError, situationOf } from '../../../protocol/explained-error.ts';
import { SyscallError } from '../../../protocol/unix/syscall-error.ts';
import { Command } from '../../../protocol/vfio-user/commands.ts';
import {
  ConnectionClosedError,
  RemoteError,
  ReplyTimeoutError,
  ServerProtocolError,
} from '../../../vmm-glue/client/connection-errors.ts';

const broken = new SyscallError('recvmsg', Errno.ECONNRESET);

it.each<[ExplainedError, object, string]>([
  [
    new WireError('EINVAL', 'it wraps around', { call: 'DMA_MAP', path: '0x0+0x1000' }),
    { what: 'it wraps around', errno: 22, code: 'EINVAL', call: 'DMA_MAP', path: '0x0+0x1000' },
    'DMA_MAP 0x0+0x1000: it wraps around',
  ],
  [
    new WireError('EBUSY', 'a trace is being recorded already', { fix: 'stop it first' }),
    { what: 'a trace is being recorded already', fix: 'stop it first', errno: 16 },
    'a trace is being recorded already; stop it first',
  ],
  [
    new RemoteError(Command.regionRead, Errno.EIO),
    { what: 'the server answered EIO', errno: 5, code: 'EIO', call: 'REGION_READ', command: 9 },
    'REGION_READ: the server answered EIO',
  ],
  [
    new ReplyTimeoutError(Command.deviceReset, 500),
    { what: 'the server did not answer within 500 ms', call: 'DEVICE_RESET' },
    'DEVICE_RESET: the server did not answer within 500 ms',
  ],
  [
    new ServerProtocolError('the reply is no JSON', 'Faults'),
    { what: 'the reply is no JSON', call: 'Faults' },
    'Faults: the reply is no JSON',
  ],
  [
    new ConnectionClosedError('the server closed the connection', broken),
    { what: `the server closed the connection: ${situationOf(broken)}`, cause: broken },
    `the server closed the connection: ${situationOf(broken)}`,
  ],
])('$name has its parts', (error, parts, message) => {
  expect(error).toMatchObject({ ...parts, message });
});
