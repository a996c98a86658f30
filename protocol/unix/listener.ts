// Sockets that listen at a path: nobody's live socket is replaced, a stale one is, and what is removed is one's own.
import { lstatSync, openSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { STREAM_FLAGS } from './fd-socket.ts';
import { AF_UNIX, LOCK_EX, LOCK_NB } from './kernel-numbers.ts';
import { bind, closeFd, connect, ErrnoNumber, fchmod, flock, listen, socket } from './libc.ts';
import { onFile } from './on-file.ts';
import { grantAccess, OWNER_ONLY, type SocketAccess } from './socket-access.ts';
import { socketAddress } from './socket-address.ts';
import { check, SyscallError } from './syscall-error.ts';

const BACKLOG = 64;

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
