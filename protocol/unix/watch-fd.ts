// Readiness of bare fds on a thread that has an event loop: Node's own (uv_poll), on the main thread or a worker.
// It keeps the thread alive only while something is watched, and never holds up process.exit().
import { fstatSync } from 'node:fs';
import koffi from 'koffi';
import { ErrnoNumber } from './libc.ts';
import { SyscallError } from './syscall-error.ts';

/** What is watched on this thread: libuv takes one watch per fd, and koffi 3.3 ends the process at a second. */
const watched = new Map<number, Watch>();

/**
 * Calls `onReadable` whenever `fd` can be read, has hung up or failed (which a read shows), as long as that is so.
 * Returns what ends the watch. The fd stays the caller's, who must end the watch before closing it.
 * @throws SyscallError where there is nothing to wait for: an fd that is not open, or a file's.
 */
export function watchFd(fd: number, onReadable: () => void): () => void {
  if (watched.has(fd)) {
    throw new Error(`watch of fd ${fd}: it is watched already; end that watch first`);
  }
  checkPollable(fd);
  const watch = new Watch(fd, onReadable);
  return () => watch.end();
}

class Watch {
  readonly #fd: number;
  readonly #onReadable: () => void;
  // koffi forgets a handle that nobody refers to.
  #handle: ReturnType<typeof koffi.node.poll>;

  constructor(fd: number, onReadable: () => void) {
    this.#fd = fd;
    this.#onReadable = onReadable;
    this.#handle = this.#start();
    watched.set(fd, this);
  }

  end(): void {
    if (watched.get(this.#fd) === this) {
      watched.delete(this.#fd);
      this.#handle.close();
    }
  }

  #start(): ReturnType<typeof koffi.node.poll> {
    // koffi 3.3 passes libuv's status first, which its types leave out.
    return koffi.node.poll(this.#fd, { readable: true }, (status: unknown) => {
      this.#deliver();
      // At an error libuv stops for good, but there may be more to read before the error is.
      if (typeof status === 'number' && status < 0 && watched.get(this.#fd) === this) {
        this.#handle.close();
        this.#handle = this.#start();
      }
    });
  }

  #deliver(): void {
    try {
      this.#onReadable();
    } catch (error) {
      // An uncaught exception like any other callback's; koffi would drop it, and never call again.
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

/** epoll takes neither a closed fd nor a file's, and koffi 3.3 ends the process at what it does not take. */
function checkPollable(fd: number): void {
  let isFile: boolean;
  try {
    const stats = fstatSync(fd);
    isFile = stats.isFile() || stats.isDirectory();
  } catch {
    throw new SyscallError('epoll_ctl', ErrnoNumber.EBADF, `fd ${fd}`);
  }
  if (isFile) {
    throw new SyscallError('epoll_ctl', ErrnoNumber.EPERM, `fd ${fd}`);
  }
}
