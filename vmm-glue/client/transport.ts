// What a client's bytes travel on: a unix socket (unix-transport.ts) or a pair inside this process
// (loopback-transport.ts). A transport keeps order, promises nothing about where chunks are cut, and never blocks.
// connection.ts puts vfio-user messages on top of it.

/** Who gets what arrives. Called from the event loop, never from inside `send`. */
export interface TransportReceiver {
  /** Some bytes of the stream, valid until this returns; `fds` came with them and are the receiver's to close. */
  chunk(bytes: Uint8Array, fds: number[]): void;
  /** Called once, when the peer has closed or the transport broke; not after an own `close()`. */
  ended(reason: Error | undefined): void;
}

/** An ordered stream of bytes, with file descriptors where the medium can carry them. */
export interface Transport {
  readonly carriesFds: boolean;
  /** Starts delivery; what arrived earlier is kept until then. */
  start(receiver: TransportReceiver): void;
  /** Takes a copy of `bytes` and of `fds` (the caller keeps its own) and sends them as soon as the peer takes them. */
  send(bytes: Uint8Array, fds?: readonly number[]): void;
  /** Ends the stream for both sides; what was not sent yet is dropped. */
  close(): void;
}
