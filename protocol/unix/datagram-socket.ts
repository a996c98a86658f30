// A unix datagram socket that only sends, which Node has none of: what sd_notify(3) speaks over.
import { MAX_SOCKET_PATH_BYTES } from '../launch/socket-names.ts';
import { check, closeFd, connect, ErrnoNumber, SyscallError, send, socket } from './libc.ts';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const MSG_NOSIGNAL = 0x4000;

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

/** struct sockaddr_un of unix(7), of a path or an `@name`: a path ends with a NUL, an abstract name begins with one. */
export function datagramAddress(address: string): Uint8Array {
  const isAbstract = address.startsWith('@');
  const name = Buffer.from(isAbstract ? `\0${address.slice(1)}` : `${address}\0`);
  if (!(isAbstract || address.startsWith('/'))) {
    const fix = 'only paths and abstract names are known';
    throw new SyscallError('connect', ErrnoNumber.EAFNOSUPPORT, address, fix);
  }
  if (name.length > MAX_SOCKET_PATH_BYTES + 1) {
    throw new SyscallError('connect', ErrnoNumber.ENAMETOOLONG, address);
  }
  const bytes = new Uint8Array(2 + name.length);
  bytes[0] = AF_UNIX;
  bytes.set(name, 2);
  return bytes;
}
