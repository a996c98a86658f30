// Writing to a file that others share, such as standard error, without ever waiting for its reader. O_NONBLOCK cannot be
// set on it: that would be set for the shell and for every other process that has it, too.
import { constants, fstatSync, openSync } from 'node:fs';
import { MSG_DONTWAIT, MSG_NOSIGNAL, POLLOUT } from './kernel-numbers.ts';
import { ErrnoNumber, pinnedMemory, poll, send, write } from './libc.ts';

/** PIPE_BUF: a pipe that can be written to takes this much at once. */
const PIPE_BYTES = 4096;

/** Writes as much to `fd` as can be had without waiting: bytes or -errno, EAGAIN where there is no room. */
export function nonBlockingOutput(fd: number): (bytes: Uint8Array) => number {
  const file = fstatSync(fd);
  if (file.isSocket()) {
    return (bytes) => send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  if (file.isFile()) {
    return (bytes) => write(fd, bytes, bytes.length);
  }
  const own = openedAnew(fd);
  return own === undefined ? whenReady(fd) : (bytes) => write(own, bytes, bytes.length);
}

/** The same pipe or terminal by an open file of its own, which alone does not block; undefined where that is not permitted. */
function openedAnew(fd: number): number | undefined {
  try {
    const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants;
    return openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY);
  } catch {
    return undefined;
  }
}

/** Asks first. Somebody else may take the room in between; then this waits as everybody does. */
function whenReady(fd: number): (bytes: Uint8Array) => number {
  const { address, bytes: entry } = pinnedMemory(8);
  const view = new DataView(entry.buffer);
  view.setInt32(0, fd, true);
  view.setInt16(4, POLLOUT, true);
  return (bytes) =>
    poll(address, 1, 0) > 0
      ? write(fd, bytes, Math.min(bytes.length, PIPE_BYTES))
      : -ErrnoNumber.EAGAIN;
}
