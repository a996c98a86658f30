// What a session talks through: a byte stream that can carry fds. unix-server.ts has the one over unix sockets. The
// session never waits on it.

export interface Connection {
  /** False where fds cannot be sent: what would need them is told by path, or left out. */
  readonly carriesFds: boolean;
  /** Room to build one message in, valid until `flush`; shared by all connections of the thread. */
  readonly outgoing: Uint8Array;
  /** The peer has not taken everything that was flushed: `Session.resume` is called when it has. */
  readonly congested: boolean;
  /** Sends the first `length` bytes of `outgoing`; the fds stay the caller's. */
  flush(length: number, fds?: readonly number[]): void;
  /** Has `Session.resume` called when the other connections have had their turn. */
  later(): void;
  /** Stops receiving, or goes on. */
  hold(held: boolean): void;
  /** Closes an fd that came from the peer; never waits for the file behind it. */
  discard(fd: number): void;
  /** Ends the connection; what the peer has not taken by then is lost. */
  close(): void;
}
