// A unix datagram socket that only sends, which Node has none of: what sd_notify(3) speaks over.

import {
  AF_UNIX,
  MSG_NOSIGNAL,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
} from './kernel-numbers.ts';
import { closeFd, connect, send, socket } from './libc.ts';
import { datagramAddress } from './socket-address.ts';
import { check, SyscallError } from './syscall-error.ts';

/** Sends to one address; never waits. */
export class DatagramSocket {
  readonly #fd: number;

  /** `address`: a path, or an abstract name after an `@`. @throws SyscallError where nobody listens there */
  constructor(address: string) {
    const bytes = datagramAddress(address);
    this.#fd = check('socket', socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK));
    const result = connect(this.#fd, bytes);
    if (result < 0) {
      closeFd(this.#fd);
      throw new SyscallError('connect', -result, address);
    }
  }

  /** True where it was sent; a datagram that the peer has no room for is lost. */
  send(text: string): boolean {
    const bytes = Buffer.from(text);
    return send(this.#fd, bytes, bytes.length, MSG_NOSIGNAL) === bytes.length;
  }

  close(): void {
    closeFd(this.#fd);
  }
}
