// What can go wrong with a call to a vfio-user server, one class per party at fault.
// Thrown (as rejections) by connection.ts and client.ts.

import { errnoName } from '../../protocol/errno.ts';
import { ExplainedError, situationOf } from '../../protocol/explained-error.ts';
import { commandName } from '../../protocol/vfio-user/commands.ts';

/** The server answered with an error reply; `code` is the errno's name, `command` the number of what was asked. */
export class RemoteError extends ExplainedError {
  override readonly name = 'RemoteError';
  declare readonly errno: number;
  declare readonly call: string;
  readonly code: string;
  readonly command: number;

  constructor(command: number, errno: number) {
    const code = errnoName(errno);
    super({ what: `the server answered ${code}`, errno, call: commandName(command) });
    this.code = code;
    this.command = command;
  }
}

/** The connection is gone: closed by either side, or broken (then `cause` says by what). */
export class ConnectionClosedError extends ExplainedError {
  override readonly name = 'ConnectionClosedError';

  constructor(how: string, cause?: Error) {
    super(cause === undefined ? { what: how } : { what: `${how}: ${situationOf(cause)}` });
    if (cause !== undefined) {
      this.cause = cause;
    }
  }
}

/** The server did not answer in time; the connection stays open and a late answer is ignored. */
export class ReplyTimeoutError extends ExplainedError {
  override readonly name = 'ReplyTimeoutError';
  declare readonly call: string;

  constructor(command: number, milliseconds: number) {
    const what = `the server did not answer within ${milliseconds} ms`;
    super({ what, call: commandName(command) });
  }
}

/** The server answered something that the protocol does not allow; `call`: to what. */
export class ServerProtocolError extends ExplainedError {
  override readonly name = 'ServerProtocolError';

  constructor(what: string, call?: string) {
    super({ what, call });
  }
}
