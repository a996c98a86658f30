// What can go wrong with a call to a vfio-user server, one class per party at fault.
// Thrown (as rejections) by connection.ts and client.ts.

import { errnoName } from '../../protocol/errno.ts';
import { commandName } from '../../protocol/vfio-user/commands.ts';

/** The server answered with an error reply; `code` is the errno's name, `command` the number of what was asked. */
export class RemoteError extends Error {
  readonly errno: number;
  readonly code: string;
  readonly command: number;

  constructor(command: number, errno: number) {
    const code = errnoName(errno);
    super(`${commandName(command)}: the server answered ${code}`);
    this.name = 'RemoteError';
    this.errno = errno;
    this.code = code;
    this.command = command;
  }
}

/** The connection is gone: closed by either side, or broken (then `cause` says by what). */
export class ConnectionClosedError extends Error {
  constructor(message: string, cause?: Error) {
    super(
      cause === undefined ? message : `${message}: ${cause.message}`,
      cause === undefined ? {} : { cause },
    );
    this.name = 'ConnectionClosedError';
  }
}

/** The server did not answer in time; the connection stays open and a late answer is ignored. */
export class ReplyTimeoutError extends Error {
  constructor(command: number, milliseconds: number) {
    super(`${commandName(command)}: the server did not answer within ${milliseconds} ms`);
    this.name = 'ReplyTimeoutError';
  }
}

/** The server answered something that the protocol does not allow. */
export class ServerProtocolError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'ServerProtocolError';
  }
}
