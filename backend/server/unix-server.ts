// vfio-user sessions over unix sockets, on the device thread's loop. Never blocks in a send: what the peer does not
// take is kept, and nothing more is read from it until it does, so that two sides can't wait for each other for ever.
// Whatever a client does, or this process has too little of, ends that client's connection at most, with a line in the log.

import type { Timer } from '../../protocol/clock.ts';
import type { Log } from '../../protocol/log.ts';
import {
  acceptUnix,
  closeListener,
  listenUnix,
  SocketBuffer,
  setNonBlocking,
  socketPair,
} from '../../protocol/unix/fd-socket.ts';
import { closeFd, ErrnoNumber, SyscallError } from '../../protocol/unix/libc.ts';
import { dupFd } from '../../protocol/unix/memory.ts';
import { closePeerFile } from '../../protocol/unix/peer-file.ts';
import type { Endpoint } from '../hotplug/endpoint.ts';
import type { EventLoop } from '../thread/event-loop.ts';
import type { Connection } from './connection.ts';
import { HANDLERS } from './handlers.ts';
import { MAX_DATA_BYTES, MAX_FDS, Session } from './session.ts';

/** Received at once. Small, because cutting it into messages and keeping them is part of one client's turn. */
const RECEIVE_BYTES = 16 * 1024;
const SEND_BYTES = MAX_DATA_BYTES + 4096;
/** How long nobody is accepted after that failed: for want of fds mostly, which do not come back at once. */
const ACCEPT_PAUSE_MILLISECONDS = 1000;
/** Clients at one socket at a time, unless told otherwise. */
const MOST_CONNECTIONS = 64;
/** What may wait for a client that takes nothing: a reply, and commands of the server's own. */
const MAX_UNSENT_BYTES = 4 * MAX_DATA_BYTES;

interface Buffers {
  readonly incoming: SocketBuffer;
  readonly outgoing: SocketBuffer;
  readonly discard: (fd: number) => void;
}

export class UnixServer {
  readonly #loop: EventLoop;
  readonly #log: Log;
  readonly #buffers: Buffers;
  readonly #listeners: Listener[] = [];
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

  /** Takes clients at `path` until `close`, so many at a time. @throws SyscallError where the path cannot be bound. */
  listen(path: string, endpoint: Endpoint, mostConnections = MOST_CONNECTIONS): void {
    const socket = listenUnix(path);
    this.#accept(path, socket.fd, endpoint, mostConnections, () => closeListener(socket));
  }

  /** Takes clients of a socket that listens already; the fd becomes ours, its file stays whose it is. */
  listenOn(fd: number, endpoint: Endpoint): void {
    setNonBlocking(fd);
    this.#accept(`fd ${fd}`, fd, endpoint, MOST_CONNECTIONS, () => closeFd(fd));
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
    for (const listener of this.#listeners.splice(0)) {
      listener.close();
    }
    for (const connection of [...this.#connections]) {
      connection.session.close();
    }
  }

  #accept(
    name: string,
    fd: number,
    endpoint: Endpoint,
    mostConnections: number,
    close: () => void,
  ): void {
    const listener = new Listener(this.#loop, this.#log.child({ socket: name }), {
      fd,
      mostConnections,
      serve: (client, closed) => this.#serve(client, endpoint, closed),
      close,
    });
    this.#listeners.push(listener);
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

interface ListenerOptions {
  readonly fd: number;
  readonly mostConnections: number;
  /** Takes a client's fd over; calls back when the client has gone. */
  serve(fd: number, closed: () => void): void;
  close(): void;
}

class Listener {
  readonly #loop: EventLoop;
  readonly #log: Log;
  readonly #options: ListenerOptions;
  #connections = 0;
  #pause: Timer | undefined;
  /** The log has a word about it. */
  #isFailing = false;

  constructor(loop: EventLoop, log: Log, options: ListenerOptions) {
    this.#loop = loop;
    this.#log = log;
    this.#options = options;
    loop.watch(options.fd, { readable: () => this.#accept() });
  }

  close(): void {
    this.#pause?.cancel();
    this.#loop.unwatch(this.#options.fd);
    this.#options.close();
  }

  #accept(): void {
    const { fd, mostConnections, serve } = this.#options;
    const client = acceptUnix(fd);
    if (client === -ErrnoNumber.EAGAIN) {
      return;
    }
    if (client < 0) {
      this.#failed(-client);
      return;
    }
    this.#isFailing = false;
    if (this.#connections >= mostConnections) {
      this.#log.warn(
        `a client is turned away: ${mostConnections} are connected, which is the most`,
      );
      closeFd(client);
      return;
    }
    this.#connections++;
    serve(client, () => {
      this.#connections--;
    });
  }

  #failed(errno: number): void {
    if (!this.#isFailing) {
      this.#log.error(new SyscallError('accept', errno).message);
    }
    this.#isFailing = true;
    const { fd } = this.#options;
    this.#loop.await(fd, { readable: false, writable: false });
    this.#pause = this.#loop.after(ACCEPT_PAUSE_MILLISECONDS, () => {
      this.#loop.await(fd, { readable: true, writable: false });
    });
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
  #unsentBytes = 0;
  #held = false;
  #isCalledLater = false;
  /** Nothing can be sent any more: the connection ends with this turn of the loop. */
  #isBroken = false;
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
    if (this.#unsentBytes > MAX_UNSENT_BYTES) {
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
      readable: !this.#held && !this.congested,
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
