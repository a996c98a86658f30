// Answers one request in each connection, one after another, for the users who may ask. It never waits for a client: what
// the kernel does not take at once of a reply is dropped with the connection. A file that is sent is closed here at once,
// so that it lives as long as whoever has it, or the message that nobody reads. Runs in root's processes.

import type { Clock, Timer } from '../../../../protocol/clock.ts';
import { Errno } from '../../../../protocol/errno.ts';
import { ExclusiveQueue } from '../../../../protocol/exclusive-queue.ts';
import type { Log } from '../../../../protocol/log.ts';
import { acceptUnix, closeConnection, peerUser } from '../../../../protocol/unix/fd-socket.ts';
import { closeFd, ErrnoNumber } from '../../../../protocol/unix/libc.ts';
import { SocketBuffer } from '../../../../protocol/unix/socket-buffer.ts';
import { watchFd } from '../../../../protocol/unix/watch-fd.ts';
import { encodeReply, MESSAGE_VERSION, type Operation, REPLY_BYTES, Request } from './messages.ts';

/** What is done about a request: `errno` 0 where it is done. */
export interface Answer {
  readonly errno: number;
  readonly value?: number;
  readonly text?: string;
  /** An open file that goes along. */
  readonly fd?: number;
}

/** To be called once. When it returns, the answer is sent, and its file is closed here. */
export type Reply = (answer: Answer) => void;

/** By operation; what is not there is refused. */
export type Handlers = Partial<
  Record<Operation, (argument: number, reply: Reply) => Promise<void>>
>;

export interface RequestServerOptions {
  /** Listens; stays the caller's. */
  readonly listener: number;
  /** Who may ask. */
  readonly users: readonly number[];
  readonly handlers: Handlers;
  readonly clock: Clock;
  readonly log: Log;
}

/** A backend asks one thing at a time: more are not needed, and fewer fds are wasted. */
const MOST_CLIENTS = 16;
/** How long a client may take to say what it wants. */
const REQUEST_PATIENCE_MILLISECONDS = 5_000;

interface Client {
  readonly fd: number;
  readonly request: Uint8Array;
  received: number;
  readonly patience: Timer;
  readonly stopWatching: () => void;
}

export class RequestServer {
  readonly #options: RequestServerOptions;
  readonly #buffer = new SocketBuffer(REPLY_BYTES, 1);
  readonly #queue = new ExclusiveQueue();
  /** Those that have not said yet what they want, and how many wait for an answer. */
  readonly #clients = new Set<Client>();
  #waiting = 0;
  readonly #stopListening: () => void;

  constructor(options: RequestServerOptions) {
    this.#options = options;
    this.#stopListening = watchFd(options.listener, () => this.#accept());
  }

  /** Ends all connections. */
  close(): void {
    this.#stopListening();
    for (const client of this.#clients) {
      this.#forget(client);
      closeConnection(client.fd);
    }
  }

  #accept(): void {
    const { listener, clock } = this.#options;
    const fd = acceptUnix(listener);
    if (fd < 0) {
      return;
    }
    if (this.#clients.size + this.#waiting >= MOST_CLIENTS) {
      closeFd(fd);
      return;
    }
    const client: Client = {
      fd,
      request: new Uint8Array(Request.size),
      received: 0,
      patience: clock.after(REQUEST_PATIENCE_MILLISECONDS, () =>
        this.#refuse(client, Errno.ETIMEDOUT),
      ),
      stopWatching: watchFd(fd, () => this.#receive(client)),
    };
    this.#clients.add(client);
  }

  #receive(client: Client): void {
    const length = this.#buffer.receive(client.fd);
    const { fds } = this.#buffer;
    for (const fd of fds) {
      closeFd(fd);
    }
    if (length === -ErrnoNumber.EAGAIN) {
      return;
    }
    const isTooMuch = length > Request.size - client.received;
    if (length <= 0 || isTooMuch || fds.length > 0) {
      this.#refuse(client, Errno.EINVAL);
      return;
    }
    client.request.set(this.#buffer.data.subarray(0, length), client.received);
    client.received += length;
    if (client.received === Request.size) {
      this.#forget(client);
      this.#waiting += 1;
      void this.#queue.run(() => this.#carryOut(client));
    }
  }

  async #carryOut({ fd, request }: Client): Promise<void> {
    const { version, operation, argument } = Request.decode(request);
    const { users, handlers, log } = this.#options;
    const handler = handlers[operation as Operation];
    let isAnswered = false;
    const reply: Reply = (answer) => {
      isAnswered = true;
      this.#waiting -= 1;
      this.#reply(fd, operation, answer);
    };
    if (!users.includes(peerUser(fd))) {
      reply({ errno: Errno.EPERM });
    } else if (version !== MESSAGE_VERSION) {
      reply({ errno: Errno.EPROTO });
    } else if (handler === undefined) {
      reply({ errno: Errno.EINVAL });
    } else {
      try {
        await handler(argument, reply);
      } catch (error) {
        log.error('a request failed', { operation, argument, error: String(error) });
        if (!isAnswered) {
          reply({ errno: Errno.EIO });
        }
      }
    }
  }

  #refuse(client: Client, errno: number): void {
    this.#forget(client);
    this.#reply(client.fd, 0, { errno });
  }

  #forget(client: Client): void {
    client.patience.cancel();
    client.stopWatching();
    this.#clients.delete(client);
  }

  #reply(fd: number, operation: number, { errno, value = 0, text = '', fd: file }: Answer): void {
    encodeReply({ version: MESSAGE_VERSION, operation, errno, value, text }, this.#buffer.data);
    // To a socket on which nothing was sent yet: there is room, or nobody is there any more.
    this.#buffer.send(fd, 0, REPLY_BYTES, file === undefined ? [] : [file]);
    if (file !== undefined) {
      closeFd(file);
    }
    closeFd(fd);
  }
}
