// What a session talks through: a byte stream that can carry fds. Siblings: unix sockets (unix-server.ts) and an
// in-process pair (in-process.ts). The session never waits on it.

export interface Connection {
  /** False where fds cannot be sent: what would need them is told by path, or left out. */
  readonly carriesFds: boolean;
  /** Room to build one message in, valid until `flush`; shared by all connections of the thread. */
  readonly outgoing: Uint8Array;
  /** Sends the first `length` bytes of `outgoing`; the fds stay the caller's. */
  flush(length: number, fds?: readonly number[]): void;
  /** Ends the connection, after what was flushed has gone out. */
  close(): void;
}

/** One line of the log, with facts beside it. */
export type Log = (
  level: 'debug' | 'info' | 'warn' | 'error',
  message: string,
  fields?: Record<string, unknown>,
) => void;
