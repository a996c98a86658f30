// A vfio-user connection over a unix stream socket, with file descriptors. All sockets of the process share one
// receive and one send arena: a chunk is consumed before the next is read, and what a full socket does not take is
// copied and sent later.

import type { Clock, Timer } from '../../protocol/clock.ts';
import { Errno } from '../../protocol/errno.ts';
import { closeConnection, connectUnix, setNonBlocking } from '../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { dupFd } from '../../protocol/unix/memory.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { SocketBuffer } from '../../protocol/unix/socket-buffer.ts';
import { SyscallError } from '../../protocol/unix/syscall-error.ts';
import { watchFd } from '../../protocol/unix/watch-fd.ts';
import type { Transport, TransportReceiver } from './transport.ts';

const ARENA_BYTES = 256 * 1024;
/** A full socket is tried again after this time: only readability is watched. */
const RETRY_MILLISECONDS = 1;

let receiveArena: SocketBuffer | undefined;
let sendArena: SocketBuffer | undefined;

interface Outgoing {
  readonly bytes: Uint8Array;
  at: number;
  /** Duplicates, closed once they are sent. */
  fds: number[];
}

export class UnixTransport implements Transport {
  readonly carriesFds = true;
  readonly #fd: number;
  readonly #clock: Clock;
  #unwatch: (() => void) | undefined;
  #receiver: TransportReceiver | undefined;
  #queue: Outgoing[] = [];
  #retry: Timer | undefined;
  #closed = false;

  /** Connects to the socket at `path`. Throws SyscallError (ENOENT, ECONNREFUSED, EACCES ...). */
  static connect(path: string, clock?: Clock): UnixTransport {
    return new UnixTransport(connectUnix(path), clock);
  }

  /** Takes over a connected stream socket; closed by `close()`. */
  constructor(fd: number, clock: Clock = processClock) {
    this.#fd = fd;
    this.#clock = clock;
    setNonBlocking(fd);
  }

  start(receiver: TransportReceiver): void {
    this.#receiver = receiver;
    this.#unwatch = watchFd(this.#fd, () => this.#receive());
  }

  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    if (this.#closed) {
      return;
    }
    let sent = 0;
    if (this.#queue.length === 0) {
      sent = this.#trySend(bytes, 0, fds);
    }
    if (sent < bytes.length && !this.#closed) {
      this.#queue.push({
        bytes: bytes.slice(),
        at: sent,
        fds: sent === 0 ? fds.map((fd) => dupFd(fd)) : [],
      });
      this.#scheduleRetry();
    }
  }

  close(): void {
    if (this.#closed) {
      return;
    }
    this.#closed = true;
    this.#unwatch?.();
    this.#retry?.cancel();
    for (const message of this.#queue) {
      for (const fd of message.fds) {
        closeFd(fd);
      }
    }
    this.#queue = [];
    closeConnection(this.#fd);
  }

  /** Sends what the socket takes now, from `at` on; gives the new position. File descriptors go with the first byte. */
  #trySend(bytes: Uint8Array, at: number, fds: readonly number[]): number {
    sendArena ??= new SocketBuffer(ARENA_BYTES);
    let position = at;
    while (position < bytes.length) {
      const piece = bytes.subarray(position, position + ARENA_BYTES);
      sendArena.data.set(piece);
      const sent = sendArena.send(this.#fd, 0, piece.length, position === 0 ? fds : []);
      if (sent === -Errno.EAGAIN) {
        return position;
      }
      if (sent < 0) {
        // EPIPE and ECONNRESET also end the receiving side, which reports them after what is still to be read.
        if (sent !== -Errno.EPIPE && sent !== -Errno.ECONNRESET) {
          this.#fail(new SyscallError('sendmsg', -sent));
        }
        return bytes.length;
      }
      position += sent;
    }
    return position;
  }

  #flush(): void {
    while (!this.#closed) {
      const message = this.#queue[0];
      if (message === undefined) {
        return;
      }
      message.at = this.#trySend(message.bytes, message.at, message.fds);
      if (message.at > 0) {
        for (const fd of message.fds) {
          closeFd(fd);
        }
        message.fds = [];
      }
      if (message.at < message.bytes.length) {
        this.#scheduleRetry();
        return;
      }
      this.#queue.shift();
    }
  }

  #scheduleRetry(): void {
    this.#retry?.cancel();
    this.#retry = this.#clock.after(RETRY_MILLISECONDS, () => this.#flush());
  }

  #receive(): void {
    receiveArena ??= new SocketBuffer(ARENA_BYTES);
    while (!this.#closed) {
      const length = receiveArena.receive(this.#fd);
      if (length === -Errno.EAGAIN) {
        break;
      }
      if (length <= 0) {
        this.#fail(length === 0 ? undefined : new SyscallError('recvmsg', -length));
        return;
      }
      this.#receiver?.chunk(receiveArena.data.subarray(0, length), receiveArena.fds.splice(0));
    }
    this.#flush();
  }

  #fail(reason: Error | undefined): void {
    if (!this.#closed) {
      this.close();
      this.#receiver?.ended(reason);
    }
  }
}
