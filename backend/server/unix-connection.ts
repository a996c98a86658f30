// A session's connection over a unix socket, on the device thread's loop. Never blocks in a send: what the peer does not
// take is kept, and nothing more is read from it until it does; but where it owes an answer, it may send that before it
// takes anything, and is read on as far as the session has room, so that the two do not wait for each other for ever.

import { closeFd, ErrnoNumber } from '../../protocol/unix/libc.ts';
import { dupFd } from '../../protocol/unix/memory.ts';
import type { SocketBuffer } from '../../protocol/unix/socket-buffer.ts';
import { SyscallError } from '../../protocol/unix/syscall-error.ts';
import type { EventLoop } from '../thread/event-loop.ts';
import type { Connection } from './connection.ts';
import { MAX_DATA_BYTES, MAX_FDS } from './limits.ts';
import type { Session } from './session.ts';

/** What may wait for a client that takes nothing: a reply, and commands of the server's own. */
const MAX_UNSENT_BYTES = 4 * MAX_DATA_BYTES;
/** Their fds: a socket for each VF of an enable, and those of a reply. All clients' are out of one process's. */
const MAX_UNSENT_FDS = 256 + MAX_FDS;

/** Shared by all connections of a thread. */
export interface ConnectionBuffers {
  readonly incoming: SocketBuffer;
  readonly outgoing: SocketBuffer;
  readonly discard: (fd: number) => void;
}

interface Unsent {
  readonly bytes: Uint8Array;
  /** Copies of the caller's, closed when they are sent. */
  readonly fds: readonly number[];
}

export class UnixConnection implements Connection {
  session!: Session;
  readonly carriesFds = true;
  readonly outgoing: Uint8Array;
  readonly #fd: number;
  readonly #loop: EventLoop;
  readonly #buffers: ConnectionBuffers;
  readonly #closed: () => void;
  readonly #unsent: Unsent[] = [];
  #unsentBytes = 0;
  #unsentFds = 0;
  #held = false;
  #isCalledLater = false;
  /** Nothing can be sent any more: the connection ends with this turn of the loop. */
  #isBroken = false;
  #open = true;

  constructor(fd: number, loop: EventLoop, buffers: ConnectionBuffers, closed: () => void) {
    this.#fd = fd;
    this.#loop = loop;
    this.#buffers = buffers;
    this.#closed = closed;
    this.outgoing = buffers.outgoing.data;
    loop.watch(fd, {
      readable: (hangup) => this.#readAll(hangup),
      writable: () => this.#writeOn(),
    });
  }

  get congested(): boolean {
    return this.#unsent.length > 0;
  }

  hold(held: boolean): void {
    if (held === this.#held) {
      return;
    }
    this.#held = held;
    this.#await();
  }

  later(): void {
    if (this.#isCalledLater) {
      return;
    }
    this.#isCalledLater = true;
    this.#loop.soon(() => {
      this.#isCalledLater = false;
      this.session.resume();
    });
  }

  flush(length: number, fds: readonly number[] = []): void {
    if (!this.#open || this.#isBroken) {
      return;
    }
    if (this.congested) {
      this.#keep(0, length, fds);
      return;
    }
    const sent = this.#buffers.outgoing.send(this.#fd, 0, length, fds);
    if (sent === length) {
      return;
    }
    if (sent >= 0) {
      this.#keep(sent, length, sent > 0 ? [] : fds);
    } else if (sent === -ErrnoNumber.EAGAIN) {
      this.#keep(0, length, fds);
    } else {
      this.#sendFailed(-sent);
    }
  }

  discard(fd: number): void {
    this.#buffers.discard(fd);
  }

  close(): void {
    if (!this.#open) {
      return;
    }
    this.#open = false;
    this.#loop.unwatch(this.#fd);
    closeFd(this.#fd);
    for (const { fds } of this.#unsent.splice(0)) {
      fds.forEach(closeFd);
    }
    this.#closed();
  }

  /** After a hang-up there is an end to what can be read; what the session cannot do in one turn keeps its order. */
  #readAll(hangup: boolean): void {
    if (hangup && this.session.isBehind) {
      this.session.resume();
    }
    if (!hangup) {
      this.#read(false);
    }
    while (hangup && this.#open && !this.session.isBehind) {
      this.#read(true);
    }
    if (this.#open && this.congested) {
      this.#await();
    }
  }

  #read(hangup: boolean): void {
    const { incoming } = this.#buffers;
    const received = incoming.receive(this.#fd);
    if (received > 0) {
      this.#take(incoming.data.subarray(0, received), incoming.fds);
    } else if (received !== -ErrnoNumber.EAGAIN || hangup) {
      if (received === -ErrnoNumber.EMSGSIZE) {
        this.session.log.warn(
          'a message came with more fds than are taken, or than this process may have open; closing the connection',
        );
      }
      this.#end();
    }
  }

  /** A fault of ours costs this client its connection, and nobody else anything. */
  #take(bytes: Uint8Array, fds: readonly number[]): void {
    try {
      this.session.receive(bytes, fds);
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  #end(): void {
    this.close();
    this.session.disconnected();
  }

  #keep(from: number, length: number, fds: readonly number[]): void {
    this.#unsentBytes += length - from;
    this.#unsentFds += fds.length;
    if (this.#unsentBytes > MAX_UNSENT_BYTES || this.#unsentFds > MAX_UNSENT_FDS) {
      this.#breakOff('the client takes nothing of what it is sent');
      return;
    }
    const copies: number[] = [];
    try {
      for (const fd of fds) {
        copies.push(dupFd(fd));
      }
    } catch (error) {
      if (!(error instanceof SyscallError)) {
        throw error;
      }
      copies.forEach(closeFd);
      this.#breakOff(error.message);
      return;
    }
    this.#unsent.push({ bytes: this.outgoing.slice(from, length), fds: copies });
    this.#await();
  }

  /** The peer has gone, or the kernel is out of something: either way the client waits for a message that never comes. */
  #sendFailed(errno: number): void {
    const isGone = errno === ErrnoNumber.EPIPE || errno === ErrnoNumber.ECONNRESET;
    this.#breakOff(new SyscallError('sendmsg', errno).message, isGone ? 'debug' : 'warn');
  }

  /** Not at once: the session may be in the middle of a message. */
  #breakOff(why: string, level: 'debug' | 'warn' = 'warn'): void {
    this.session.log[level](`${why}; closing the connection`);
    this.#isBroken = true;
    this.#loop.await(this.#fd, { readable: false, writable: false });
    this.#loop.soon(() => {
      if (this.#open) {
        this.#end();
      }
    });
  }

  #await(): void {
    if (this.#isBroken) {
      return;
    }
    this.#loop.await(this.#fd, {
      readable: !this.#held && (!this.congested || this.session.awaitsAnswers),
      writable: this.congested,
    });
  }

  #writeOn(): void {
    const { outgoing } = this.#buffers;
    for (let next = this.#unsent[0]; next !== undefined; next = this.#unsent[0]) {
      outgoing.data.set(next.bytes);
      const sent = outgoing.send(this.#fd, 0, next.bytes.length, next.fds);
      if (sent === -ErrnoNumber.EAGAIN) {
        return;
      }
      if (sent < 0) {
        this.#sendFailed(-sent);
        return;
      }
      next.fds.forEach(closeFd);
      this.#unsentBytes -= sent;
      this.#unsentFds -= next.fds.length;
      if (sent < next.bytes.length) {
        this.#unsent[0] = { bytes: next.bytes.subarray(sent), fds: [] };
        return;
      }
      this.#unsent.shift();
    }
    this.#await();
    this.session.resume();
  }
}
