// A socket as systemd's, which keeps what a service tells it: a unix datagram socket that is bound.

import { AF_UNIX, SOCK_DGRAM, SOCK_NONBLOCK } from '../../protocol/unix/kernel-numbers.ts';
import { bind, closeFd, read, socket } from '../../protocol/unix/libc.ts';
import { datagramAddress } from '../../protocol/unix/socket-address.ts';
import { check } from '../../protocol/unix/syscall-error.ts';

const LONGEST = 4096;

export class NotifySocket {
  readonly #fd = check('socket', socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK));
  readonly #buffer = Buffer.alloc(LONGEST);

  /** `address`: a path, or an abstract name after an `@`. */
  constructor(address: string) {
    check('bind', bind(this.#fd, datagramAddress(address)), address);
  }

  /** What has come since the last time. */
  take(): string[] {
    const heard: string[] = [];
    for (;;) {
      const length = read(this.#fd, this.#buffer, LONGEST);
      if (length < 0) {
        return heard;
      }
      heard.push(this.#buffer.toString('utf8', 0, length));
    }
  }

  close(): void {
    closeFd(this.#fd);
  }
}
