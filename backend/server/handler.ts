// What carries out a command of a client's, and whose connections may ask it.

import { WireError } from '../../protocol/errno.ts';
import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import { commandName } from '../../protocol/vfio-user/commands.ts';
import type { Role } from '../hotplug/endpoint.ts';
import type { Session } from './session.ts';

/** A message being answered. */
export interface Request {
  readonly command: number;
  readonly body: Uint8Array;
  /** The fds that came with it. */
  readonly fds: readonly number[];
  /** Hands them over; what nobody takes is closed. */
  takeFds(): number[];
}

/** What a command does; whatever `handle` throws becomes an error reply. */
export interface Handler {
  /** Whose connections may ask this; `new`: before VERSION. */
  readonly roles: readonly (Role | 'new')[];
  /** Gives the length of the reply's body, which it wrote into `session.reply`, or LATER. */
  handle(session: Session, request: Request): number;
}

export type Handlers = Readonly<Record<number, Handler>>;

/** Instead of a length: the reply comes later, through `Session.complete`. */
export const LATER = -1;

/** @throws WireError ENOSYS | EINVAL | EPERM */
export function handlerFor(handlers: Handlers, command: number, role: Role | 'new'): Handler {
  const handler = handlers[command];
  if (handler === undefined) {
    throw new WireError('ENOSYS', 'it is not known here', { call: commandName(command) });
  }
  if (handler.roles.includes(role)) {
    return handler;
  }
  if (role === 'new') {
    throw new WireError('EINVAL', 'it came before VERSION', { call: commandName(command) });
  }
  if (command === HotplugCommand.getStatus) {
    throw new WireError('EPERM', 'the status was asked for, but sriov_status not negotiated');
  }
  throw new WireError('EPERM', `it came on a connection for the role ${role}`, {
    call: commandName(command),
  });
}
