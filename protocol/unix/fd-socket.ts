// Unix stream sockets as bare fds, non-blocking and close-on-exec, outside of any event loop. listener.ts has those that
// listen at a path, socket-buffer.ts what goes through them. Calls throw SyscallError unless they say otherwise.
import {
  AF_UNIX,
  F_GETFD,
  F_GETFL,
  F_SETFD,
  F_SETFL,
  FD_CLOEXEC,
  O_NONBLOCK,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
} from './kernel-numbers.ts';
import {
  accept4,
  closeFd,
  connect,
  ErrnoNumber,
  fcntl,
  getsockopt,
  getsockoptInto,
  shutdown,
  socket,
  socketpair,
} from './libc.ts';
import { connectFix } from './socket-access.ts';
import { socketAddress } from './socket-address.ts';
import { check, SyscallError } from './syscall-error.ts';

const SO_TYPE = 3;
const SO_PEERCRED = 17;
const SO_ACCEPTCONN = 30;
const SO_DOMAIN = 39;
const SHUT_RDWR = 2;

/** Of every socket that is made here. */
export const STREAM_FLAGS = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;

/** What an fd that somebody handed over is, to whoever wants a unix stream socket. */
export function streamSocketKind(fd: number): 'listening' | 'connected' | 'other' {
  const isUnixStream =
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN) === AF_UNIX &&
    getsockopt(fd, SOL_SOCKET, SO_TYPE) === SOCK_STREAM;
  if (!isUnixStream) {
    return 'other';
  }
  return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN) === 1 ? 'listening' : 'connected';
}

/** The next waiting connection as an fd (non-blocking, close-on-exec), or -errno; -EAGAIN when none waits. */
export function acceptUnix(fd: number): number {
  for (;;) {
    const result = accept4(fd, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (result !== -ErrnoNumber.EINTR && result !== -ErrnoNumber.ECONNABORTED) {
      return result;
    }
  }
}

/** A connected fd (non-blocking, close-on-exec); throws SyscallError: ECONNREFUSED where nobody listens, EACCES with what lets this user in. */
export function connectUnix(path: string): number {
  const address = socketAddress('connect', path);
  const fd = check('socket', socket(AF_UNIX, STREAM_FLAGS));
  const result = connect(fd, address);
  if (result < 0) {
    closeFd(fd);
    throw new SyscallError('connect', -result, path, connectFix(path, -result));
  }
  return fd;
}

/** The user, by number, whose process connected (SO_PEERCRED): as it was then. @throws SyscallError */
export function peerUser(fd: number): number {
  // struct ucred {pid; uid; gid}
  const credentials = new Uint32Array(3);
  const bytes = new Uint8Array(credentials.buffer);
  check('getsockopt', getsockoptInto(fd, SOL_SOCKET, SO_PEERCRED, bytes));
  return credentials[1]!;
}

/** Two connected fds, both non-blocking and close-on-exec. */
export function socketPair(): [number, number] {
  const pair = new Uint8Array(8);
  check('socketpair', socketpair(AF_UNIX, STREAM_FLAGS, pair));
  const view = new DataView(pair.buffer);
  return [view.getInt32(0, true), view.getInt32(4, true)];
}

/**
 * Ends a connection in both directions at once and closes it. A plain close takes effect only when no poll(2) on another
 * thread has the fd any more. The result of the shutdown does not matter: a connection may have ended by itself.
 */
export function closeConnection(fd: number): void {
  shutdown(fd, SHUT_RDWR);
  closeFd(fd);
}

/** Sets O_NONBLOCK, for an fd that somebody else opened (--fd=N). */
export function setNonBlocking(fd: number): void {
  const flags = check('fcntl', fcntl(fd, F_GETFL, 0));
  check('fcntl', fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

/** Keeps an fd that somebody else opened from the programs that this process starts. */
export function setCloseOnExec(fd: number): void {
  const flags = check('fcntl', fcntl(fd, F_GETFD, 0));
  check('fcntl', fcntl(fd, F_SETFD, flags | FD_CLOEXEC));
}
