// Where a unix socket is: struct sockaddr_un of unix(7), the family and then the name.
import { MAX_SOCKET_PATH_BYTES } from '../launch/socket-names.ts';
import { AF_UNIX } from './kernel-numbers.ts';
import { ErrnoNumber } from './libc.ts';
import { SyscallError } from './syscall-error.ts';

/** Of the file at a path. @throws SyscallError of the `call` that it is for, with what to do about the path */
export function socketAddress(call: string, path: string): Uint8Array {
  const text = Buffer.from(path);
  if (text.length === 0 || text.includes(0)) {
    throw new SyscallError(call, ErrnoNumber.EINVAL, JSON.stringify(path), 'give a file path');
  }
  if (text.length > MAX_SOCKET_PATH_BYTES) {
    const fix = `it has ${text.length} bytes and a socket path takes ${MAX_SOCKET_PATH_BYTES}: use a shorter one`;
    throw new SyscallError(call, ErrnoNumber.ENAMETOOLONG, path, fix);
  }
  if (path.includes('\ufffd')) {
    // Node has put these for bytes that are no UTF-8: the file would be another one than was meant.
    throw new SyscallError(call, ErrnoNumber.EILSEQ, path, 'use a path in UTF-8');
  }
  return encoded(`${path}\0`);
}

/** Of a path or an `@name`, which is an abstract one: a path ends with a NUL, an abstract name begins with one. */
export function datagramAddress(address: string): Uint8Array {
  if (address.startsWith('/')) {
    return socketAddress('connect', address);
  }
  if (!address.startsWith('@')) {
    const fix = 'only paths and abstract names are known';
    throw new SyscallError('connect', ErrnoNumber.EAFNOSUPPORT, address, fix);
  }
  if (Buffer.byteLength(address) > MAX_SOCKET_PATH_BYTES + 1) {
    throw new SyscallError('connect', ErrnoNumber.ENAMETOOLONG, address);
  }
  return encoded(`\0${address.slice(1)}`);
}

function encoded(name: string): Uint8Array {
  const bytes = Buffer.from(name);
  const address = new Uint8Array(2 + bytes.length);
  address[0] = AF_UNIX;
  address.set(bytes, 2);
  return address;
}
