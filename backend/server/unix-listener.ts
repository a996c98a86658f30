// One listening socket: takes clients, so many at a time, and pauses where taking one fails.

import type { Timer } from '../../protocol/clock.ts';
import type { Log } from '../../protocol/log.ts';
import { acceptUnix } from '../../protocol/unix/fd-socket.ts';
import { closeFd, ErrnoNumber } from '../../protocol/unix/libc.ts';
import { SyscallError } from '../../protocol/unix/syscall-error.ts';
import type { EventLoop } from '../thread/event-loop.ts';

/** How long nobody is accepted after that failed: for want of fds mostly, which do not come back at once. */
const ACCEPT_PAUSE_MILLISECONDS = 1000;

export interface UnixListenerOptions {
  readonly fd: number;
  readonly mostConnections: number;
  /** Takes a client's fd over; calls back when the client has gone. */
  serve(fd: number, closed: () => void): void;
  close(): void;
}

export class UnixListener {
  readonly #loop: EventLoop;
  readonly #log: Log;
  readonly #options: UnixListenerOptions;
  #connections = 0;
  #pause: Timer | undefined;
  /** The log has a word about it. */
  #isFailing = false;

  constructor(loop: EventLoop, log: Log, options: UnixListenerOptions) {
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
