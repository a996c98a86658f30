// vfio-user sessions over unix sockets, on the device thread's loop: who listens, and who is connected. Whatever a client
// does, or this process has too little of, ends that client's connection at most, with a line in the log.

import type { Log } from '../../protocol/log.ts';
import { setNonBlocking, socketPair } from '../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { closeListener, listenUnix } from '../../protocol/unix/listener.ts';
import { closePeerFile } from '../../protocol/unix/peer-file.ts';
import { OWNER_ONLY, type SocketAccess } from '../../protocol/unix/socket-access.ts';
import { SocketBuffer } from '../../protocol/unix/socket-buffer.ts';
import type { Endpoint } from '../hotplug/endpoint.ts';
import type { EventLoop } from '../thread/event-loop.ts';
import { HANDLERS } from './handlers.ts';
import { MAX_FDS, MAX_MESSAGE_BYTES, MAX_SILENCE_MILLISECONDS } from './limits.ts';
import { Session } from './session.ts';
import { type ConnectionBuffers, UnixConnection } from './unix-connection.ts';
import { UnixListener } from './unix-listener.ts';

/** Received at once. Small, because cutting it into messages and keeping them is part of one client's turn. */
const RECEIVE_BYTES = 16 * 1024;
/** Clients at one socket at a time, unless told otherwise. */
const MOST_CONNECTIONS = 64;

/** How a socket is served. */
export interface ListenOptions {
  /** Default: the owner alone. */
  readonly access?: SocketAccess | undefined;
  /** Clients at a time. */
  readonly mostConnections?: number;
}

export class UnixServer {
  readonly #loop: EventLoop;
  readonly #log: Log;
  readonly #buffers: ConnectionBuffers;
  readonly #listeners: UnixListener[] = [];
  readonly #connections = new Set<UnixConnection>();

  /** `closeElsewhere` takes over fds of files that might never let themselves be closed. */
  constructor(loop: EventLoop, log: Log, closeElsewhere: (fd: number) => void) {
    this.#loop = loop;
    this.#log = log;
    const discard = (fd: number): void => closePeerFile(fd, closeElsewhere);
    this.#buffers = {
      incoming: new SocketBuffer(RECEIVE_BYTES, MAX_FDS, discard),
      outgoing: new SocketBuffer(MAX_MESSAGE_BYTES),
      discard,
    };
  }

  get sessions(): Session[] {
    return [...this.#connections].map(({ session }) => session);
  }

  /** Takes clients at `path` until `close`. @throws SyscallError where the path cannot be bound. */
  listen(path: string, endpoint: Endpoint, options: ListenOptions = {}): void {
    const { access = OWNER_ONLY, mostConnections = MOST_CONNECTIONS } = options;
    const socket = listenUnix(path, access);
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
    const listener = new UnixListener(this.#loop, this.#log.child({ socket: name }), {
      fd,
      mostConnections,
      serve: (client, closed) => this.#serveStranger(client, endpoint, closed),
      close,
    });
    this.#listeners.push(listener);
  }

  /** Whoever may connect, may say nothing: only for a while does that keep the place from others. */
  #serveStranger(fd: number, endpoint: Endpoint, closed: () => void): void {
    const patience = this.#loop.after(MAX_SILENCE_MILLISECONDS, () => {
      if (session.agreed === undefined) {
        const seconds = MAX_SILENCE_MILLISECONDS / 1000;
        session.log.warn(
          `a client has agreed on no VERSION for ${seconds} s; closing the connection`,
        );
        session.close();
      }
    });
    const session = this.#serve(fd, endpoint, () => {
      patience.cancel();
      closed();
    });
  }

  #serve(fd: number, endpoint: Endpoint, closed: () => void): Session {
    const connection = new UnixConnection(fd, this.#loop, this.#buffers, () => {
      this.#connections.delete(connection);
      closed();
    });
    connection.session = new Session(connection, endpoint, HANDLERS, this.#log, this.#loop);
    this.#connections.add(connection);
    return connection.session;
  }
}
