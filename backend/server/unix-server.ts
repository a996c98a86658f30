// vfio-user sessions over unix sockets, on the device thread's loop. Never blocks in a send: what the peer does not
// take is kept, and nothing more is read from it until it does, so that two sides can't wait for each other for ever.

import { unlinkSync } from 'node:fs';
import type { Log } from '../../protocol/log.ts';
import {
  acceptUnix,
  listenUnix,
  SocketBuffer,
  setNonBlocking,
  socketPair,
} from '../../protocol/unix/fd-socket.ts';
import { closeFd, ErrnoNumber } from '../../protocol/unix/libc.ts';
import { dupFd } from '../../protocol/unix/memory.ts';
import { closePeerFile } from '../../protocol/unix/peer-file.ts';
import type { Endpoint } from '../hotplug/endpoint.ts';
import type { EventLoop } from '../thread/event-loop.ts';
import type { Connection } from './connection.ts';
import { HANDLERS } from './handlers.ts';
import { MAX_DATA_BYTES, MAX_FDS, Session } from './session.ts';

const RECEIVE_BYTES = 128 * 1024;
const SEND_BYTES = MAX_DATA_BYTES + 4096;
/** How long nobody is accepted after that failed: for want of fds mostly, which do not come back at once. */
const ACCEPT_PAUSE_MILLISECONDS = 1000;

interface Buffers {
  readonly incoming: SocketBuffer;
  readonly outgoing: SocketBuffer;
  readonly discard: (fd: number) => void;
}

export class UnixServer {
  readonly #loop: EventLoop;
  readonly #log: Log;
  readonly #buffers: Buffers;
  readonly #listeners = new Map<string, number>();
  readonly #connections = new Set<UnixConnection>();

  /** `closeElsewhere` takes over fds of files that might never let themselves be closed. */
  constructor(loop: EventLoop, log: Log, closeElsewhere: (fd: number) => void) {
    this.#loop = loop;
    this.#log = log;
    const discard = (fd: number): void => closePeerFile(fd, closeElsewhere);
    this.#buffers = {
      incoming: new SocketBuffer(RECEIVE_BYTES, MAX_FDS, discard),
      outgoing: new SocketBuffer(SEND_BYTES),
      discard,
    };
  }

  get sessions(): Session[] {
    return [...this.#connections].map(({ session }) => session);
  }

  /** Takes clients at `path` until `close`. @throws SyscallError where the path cannot be bound. */
  listen(path: string, endpoint: Endpoint): void {
    const listener = listenUnix(path);
    this.#listeners.set(path, listener);
    this.#loop.watch(listener, {
      readable: () => {
        const fd = acceptUnix(listener);
        if (fd >= 0) {
          this.#serve(fd, endpoint, () => {});
        } else if (fd !== -ErrnoNumber.EAGAIN) {
          this.#log.error(`accept on ${path} failed with errno ${-fd}`);
          this.#loop.await(listener, { readable: false, writable: false });
          this.#loop.after(ACCEPT_PAUSE_MILLISECONDS, () => {
            this.#loop.await(listener, { readable: true, writable: false });
          });
        }
      },
    });
  }

  /** Serves a client that is connected already; the fd becomes ours. */
  adopt(fd: number, endpoint: Endpoint, closed: () => void): Session {
    setNonBlocking(fd);
    return this.#serve(fd, endpoint, closed);
  }

  /** A new connection of which the caller gets the other end, to hand it over and close it. */
  pair(endpoint: Endpoint): { session: Session; peerFd: number } {
    const [ours, theirs] = socketPair();
    return { session: this.#serve(ours, endpoint, () => {}), peerFd: theirs };
  }

  close(): void {
    for (const [path, fd] of this.#listeners) {
      this.#loop.unwatch(fd);
      closeFd(fd);
      try {
        unlinkSync(path);
      } catch {
        // Somebody else removed it: it is gone, which is what was wanted.
      }
    }
    this.#listeners.clear();
    for (const connection of [...this.#connections]) {
      connection.session.close();
    }
  }

  #serve(fd: number, endpoint: Endpoint, closed: () => void): Session {
    const connection = new UnixConnection(fd, this.#loop, this.#buffers, () => {
      this.#connections.delete(connection);
      closed();
    });
    connection.session = new Session(connection, endpoint, HANDLERS, this.#log);
    this.#connections.add(connection);
    return connection.session;
  }
}

interface Unsent {
  readonly bytes: Uint8Array;
  /** Copies of the caller's, closed when they are sent. */
  readonly fds: readonly number[];
}

class UnixConnection implements Connection {
  session!: Session;
  readonly carriesFds = true;
  readonly outgoing: Uint8Array;
  readonly #fd: number;
  readonly #loop: EventLoop;
  readonly #buffers: Buffers;
  readonly #closed: () => void;
  readonly #unsent: Unsent[] = [];
  #held = false;
  #open = true;

  constructor(fd: number, loop: EventLoop, buffers: Buffers, closed: () => void) {
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

  flush(length: number, fds: readonly number[] = []): void {
    if (!this.#open) {
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
    }
    // Otherwise the peer is gone; the read that comes next finds that out.
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

  #readAll(hangup: boolean): void {
    do {
      this.#read(hangup);
    } while (hangup && this.#open);
  }

  #read(hangup: boolean): void {
    const { incoming } = this.#buffers;
    const received = incoming.receive(this.#fd);
    if (received > 0) {
      this.session.receive(incoming.data.subarray(0, received), incoming.fds);
    } else if (received !== -ErrnoNumber.EAGAIN || hangup) {
      this.close();
      this.session.disconnected();
    }
  }

  #keep(from: number, length: number, fds: readonly number[]): void {
    this.#unsent.push({ bytes: this.outgoing.slice(from, length), fds: fds.map(dupFd) });
    this.#await();
  }

  #await(): void {
    this.#loop.await(this.#fd, {
      readable: !this.#held && !this.congested,
      writable: this.congested,
    });
  }

  #writeOn(): void {
    const { outgoing } = this.#buffers;
    for (let next = this.#unsent[0]; next !== undefined; next = this.#unsent[0]) {
      outgoing.data.set(next.bytes);
      const sent = outgoing.send(this.#fd, 0, next.bytes.length, next.fds);
      // The peer takes no more for now, or is gone, which the read that comes next finds out.
      if (sent < 0) {
        return;
      }
      next.fds.forEach(closeFd);
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
