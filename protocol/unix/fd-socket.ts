// Unix stream sockets as bare fds, with file descriptors passed along (SCM_RIGHTS), outside of any event loop.
// The data path (SocketBuffer) works in one fixed piece of memory and returns -errno; set-up calls throw SyscallError.
import { lstatSync, openSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import {
  AF_UNIX,
  F_GETFD,
  F_GETFL,
  F_SETFD,
  F_SETFL,
  FD_CLOEXEC,
  LOCK_EX,
  LOCK_NB,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  O_NONBLOCK,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
} from './kernel-numbers.ts';
import {
  accept4,
  bind,
  check,
  closeFd,
  connect,
  ErrnoNumber,
  fchmod,
  fcntl,
  flock,
  getsockopt,
  getsockoptInto,
  listen,
  pinnedMemory,
  recvmsg,
  SyscallError,
  send,
  sendmsg,
  shutdown,
  socket,
  socketpair,
} from './libc.ts';
import { onFile } from './on-file.ts';
import { connectFix, grantAccess, OWNER_ONLY, type SocketAccess } from './socket-access.ts';
import { socketAddress } from './socket-address.ts';

const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_PEERCRED = 17;
const SO_ACCEPTCONN = 30;
const SO_DOMAIN = 39;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SHUT_RDWR = 2;

const BACKLOG = 64;
const STREAM_FLAGS = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;

/** A socket that listens at a path: its fd (non-blocking, close-on-exec), and its file, told from any other. */
export interface UnixListener {
  readonly fd: number;
  readonly path: string;
  readonly file: string;
}

/** Listens at a path, for the owner alone unless told otherwise. A stale socket file is replaced; a live one throws EADDRINUSE. */
export function listenUnix(path: string, access: SocketAccess = OWNER_ONLY): UnixListener {
  const address = socketAddress('bind', path);
  const lock = lockDirectory(path);
  try {
    removeStaleSocket(path);
    const fd = check('socket', socket(AF_UNIX, STREAM_FLAGS));
    let isBound = false;
    try {
      // The file takes its mode from the socket, so it is never there with a wider one.
      check('fchmod', fchmod(fd, OWNER_ONLY.mode), path);
      check('bind', bind(fd, address), path);
      isBound = true;
      // Nobody can connect before it listens.
      if (access !== OWNER_ONLY) {
        grantAccess(path, access);
      }
      check('listen', listen(fd, BACKLOG), path);
    } catch (error) {
      if (isBound) {
        unlinkSync(path);
      }
      closeFd(fd);
      throw error;
    }
    return { fd, path, file: identityAt(path)! };
  } finally {
    if (lock !== undefined) {
      closeFd(lock);
    }
  }
}

/** Stops listening; removes the socket's file, unless it is somebody else's by now. */
export function closeListener(listener: UnixListener): void {
  // Removed before the close: as long as it listens here, nobody takes the file for a stale one and puts another there.
  removeSocketFile(listener);
  closeFd(listener.fd);
}

/** For whoever has given the fd away: removes the file, unless it is somebody else's by now. */
export function removeSocketFile({ path, file }: UnixListener): void {
  try {
    if (identityAt(path) === file) {
      unlinkSync(path);
    }
  } catch {
    // Somebody else removed it, which is what was wanted, or the folder is not ours any more.
  }
}

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

// Two backends that start at once must not both find the file stale, or the second removes the first one's new socket.
// Best effort: a directory that somebody else keeps locked, or that cannot be read, does not stop a start, nor delays it
// by more than this, however many sockets are made there.
let lockPatienceMilliseconds = 500;
const LOCK_STEP_MILLISECONDS = 10;

function lockDirectory(path: string): number | undefined {
  let fd: number;
  try {
    fd = openSync(dirname(path), 'r');
  } catch {
    return undefined;
  }
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  while (flock(fd, LOCK_EX | LOCK_NB) !== 0) {
    if (lockPatienceMilliseconds <= 0) {
      closeFd(fd);
      return undefined;
    }
    lockPatienceMilliseconds -= LOCK_STEP_MILLISECONDS;
    Atomics.wait(sleeper, 0, 0, LOCK_STEP_MILLISECONDS);
  }
  return fd;
}

/** Device and inode of the file at a path; undefined where there is none. */
function identityAt(path: string): string | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false, bigint: true });
  return found === undefined ? undefined : `${found.dev}:${found.ino}`;
}

function removeStaleSocket(path: string): void {
  const found = onFile('lstat', path, () => lstatSync(path, { throwIfNoEntry: false }));
  if (found === undefined) {
    return;
  }
  if (!found.isSocket()) {
    const fix = found.isDirectory()
      ? 'a folder is there: name a file in it'
      : 'a file that is not a socket is there: remove it or use another path';
    throw new SyscallError('bind', ErrnoNumber.EADDRINUSE, path, fix);
  }
  const probe = check('socket', socket(AF_UNIX, STREAM_FLAGS));
  const result = connect(probe, socketAddress('connect', path));
  closeFd(probe);
  if (result === -ErrnoNumber.ECONNREFUSED) {
    onFile('unlink', path, () => unlinkSync(path));
  } else if (result === 0 || result === -ErrnoNumber.EAGAIN) {
    const fix = 'another process serves it: stop that one or use another path';
    throw new SyscallError('bind', ErrnoNumber.EADDRINUSE, path, fix);
  } else if (result !== -ErrnoNumber.ENOENT) {
    check('connect', result, path);
  }
}

// Offsets in the 64-bit struct msghdr, iovec and cmsghdr; the same on x86-64 and arm64, glibc and musl (little-endian).
const msghdr = { iov: 16, iovLength: 24, control: 32, controlLength: 40, flags: 48, size: 56 };
const iovec = { base: 0, length: 8, size: 16 };
const cmsghdr = { length: 0, level: 8, type: 12, data: 16 };

/** A message buffer with room for fds. One for each thread and direction is enough: nothing outlives a call but `data` and `fds`. */
export class SocketBuffer {
  /** What receive() fills and send() takes from. */
  readonly data: Uint8Array<ArrayBuffer>;
  /** The same bytes as `data`. */
  readonly view: DataView<ArrayBuffer>;
  readonly maxFds: number;
  readonly #discard: (fd: number) => void;
  #received: number[] = [];
  readonly #head: DataView<ArrayBuffer>;
  readonly #dataAddress: bigint;
  readonly #receiveHeader: bigint;
  readonly #sendHeader: bigint;
  readonly #receiveControl: number;
  readonly #sendControl: number;

  /**
   * `bytes` = room for data; `maxFds` = the most fds a message may carry (the kernel's own limit is 253); `discard`
   * closes received fds that no one gets.
   */
  constructor(bytes: number, maxFds = 64, discard: (fd: number) => void = closeFd) {
    this.maxFds = maxFds;
    this.#discard = discard;
    const controlBytes = align8(cmsghdr.data + 4 * maxFds);
    const blockBytes = msghdr.size + iovec.size + controlBytes;
    const dataStart = (2 * blockBytes + 63) & ~63;
    const arena = pinnedMemory(dataStart + bytes);
    this.#head = new DataView(arena.bytes.buffer, 0, dataStart);
    this.data = new Uint8Array(arena.bytes.buffer, dataStart, bytes);
    this.view = new DataView(arena.bytes.buffer, dataStart, bytes);
    this.#dataAddress = arena.address + BigInt(dataStart);
    this.#receiveControl = this.#layOut(arena.address, 0);
    this.#sendControl = this.#layOut(arena.address, blockBytes);
    this.#receiveHeader = arena.address;
    this.#sendHeader = arena.address + BigInt(blockBytes);
    this.#head.setBigUint64(msghdr.size + iovec.length, BigInt(bytes), true);
  }

  /** The fds of the last receive, close-on-exec; the caller owns them and the array. */
  get fds(): number[] {
    return this.#received;
  }

  /**
   * Reads what is there, never waits: bytes (one recvmsg), 0 = the peer closed, or -errno. More fds than `maxFds`, or
   * than this process may open (MSG_CTRUNC): all of them are closed and the result is -EMSGSIZE.
   */
  receive(fd: number): number {
    const head = this.#head;
    if (this.#received.length !== 0) {
      this.#received = [];
    }
    head.setUint32(msghdr.controlLength, cmsghdr.data + 4 * this.maxFds, true);
    let result: number;
    do {
      result = recvmsg(fd, this.#receiveHeader, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (result === -ErrnoNumber.EINTR);
    if (result < 0) {
      return result;
    }
    if (head.getUint32(msghdr.controlLength, true) !== 0) {
      this.#collectFds();
    }
    if ((head.getUint32(msghdr.flags, true) & MSG_CTRUNC) !== 0) {
      for (const received of this.#received) {
        this.#discard(received);
      }
      this.#received = [];
      return -ErrnoNumber.EMSGSIZE;
    }
    return result;
  }

  /** Sends `length` bytes of `data` from `offset`, with fds; never waits, never signals: bytes taken, or -errno. */
  send(fd: number, offset: number, length: number, fds?: readonly number[]): number {
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    const withFds = fds !== undefined && fds.length !== 0;
    if (offset < 0 || offset + length > this.data.length) {
      return -ErrnoNumber.EFAULT;
    }
    if (withFds && fds.length > this.maxFds) {
      return -ErrnoNumber.EINVAL;
    }
    const address = offset === 0 ? this.#dataAddress : this.#dataAddress + BigInt(offset);
    if (withFds) {
      this.#prepareSend(address, length, fds);
    }
    for (;;) {
      const result = withFds
        ? sendmsg(fd, this.#sendHeader, flags)
        : send(fd, address, length, flags);
      if (result !== -ErrnoNumber.EINTR) {
        return result;
      }
    }
  }

  // One block = msghdr, iovec, control; returns where the control part is.
  #layOut(address: bigint, start: number): number {
    const iov = start + msghdr.size;
    const control = iov + iovec.size;
    this.#head.setBigUint64(start + msghdr.iov, address + BigInt(iov), true);
    this.#head.setUint32(start + msghdr.iovLength, 1, true);
    this.#head.setBigUint64(start + msghdr.control, address + BigInt(control), true);
    this.#head.setBigUint64(iov + iovec.base, this.#dataAddress, true);
    return control;
  }

  #prepareSend(address: bigint, length: number, fds: readonly number[]): void {
    const head = this.#head;
    const control = this.#sendControl;
    const start = control - iovec.size - msghdr.size;
    head.setBigUint64(start + msghdr.size + iovec.base, address, true);
    head.setUint32(start + msghdr.size + iovec.length, length, true);
    head.setUint32(control + cmsghdr.length, cmsghdr.data + 4 * fds.length, true);
    head.setUint32(control + cmsghdr.level, SOL_SOCKET, true);
    head.setUint32(control + cmsghdr.type, SCM_RIGHTS, true);
    for (let i = 0; i < fds.length; i++) {
      head.setInt32(control + cmsghdr.data + 4 * i, fds[i]!, true);
    }
    head.setUint32(start + msghdr.controlLength, align8(cmsghdr.data + 4 * fds.length), true);
  }

  #collectFds(): void {
    const head = this.#head;
    let at = this.#receiveControl;
    const end = at + head.getUint32(msghdr.controlLength, true);
    while (at + cmsghdr.data <= end) {
      const length = head.getUint32(at + cmsghdr.length, true);
      if (length < cmsghdr.data) {
        return;
      }
      const isFds =
        head.getUint32(at + cmsghdr.level, true) === SOL_SOCKET &&
        head.getUint32(at + cmsghdr.type, true) === SCM_RIGHTS;
      const last = Math.min(at + length, end) - 4;
      for (let slot = at + cmsghdr.data; isFds && slot <= last; slot += 4) {
        this.#received.push(head.getInt32(slot, true));
      }
      at += align8(length);
    }
  }
}

function align8(bytes: number): number {
  return (bytes + 7) & ~7;
}
