// Readiness of bare fds on a thread that has an event loop: one poll(2) at a time on libuv's pool, over all watched fds.
// It keeps the process alive only while something is watched, and never holds up process.exit(): a blocked poll would
// (Node joins its pool), so an exit hook ends it. For the main thread: a worker's terminate() runs no exit hook.
import { createEventFd, drainEventFd, signalEventFd } from './eventfd.ts';
import { closeFd, pinnedMemory, pollAsync } from './libc.ts';
import { POLLIN, POLLNVAL, pollfd } from './poll-set.ts';

interface Watcher {
  readonly fd: number;
  readonly onReadable: () => void;
}

const reactors = new Set<Reactor>();
process.on('exit', () => {
  for (const reactor of reactors) {
    reactor.wake();
  }
});

/** Calls back when fds become readable, hang up or fail; as long as they are, again and again. */
export class Reactor {
  readonly #watchers = new Map<number, Watcher>();
  readonly #wakeFd = createEventFd();
  #memory = pinnedMemory(64 * pollfd.size);
  #polled: Watcher[] = [];
  #isPolling = false;
  #isScheduled = false;
  #isClosed = false;

  constructor() {
    reactors.add(this);
  }

  /**
   * Calls `onReadable` whenever `fd` can be read (or hung up, which a read shows). Returns what ends that; the fd stays
   * the caller's, who ends the watch before closing it. One watch per fd.
   */
  watch(fd: number, onReadable: () => void): () => void {
    if (this.#isClosed) {
      throw new Error(`watch of fd ${fd}: the reactor is closed; make a new one`);
    }
    if (this.#watchers.has(fd)) {
      throw new Error(`watch of fd ${fd}: it is watched already; end that watch first`);
    }
    const watcher = { fd, onReadable };
    this.#watchers.set(fd, watcher);
    this.#changed();
    return () => {
      if (this.#watchers.get(fd) !== watcher) {
        return;
      }
      this.#watchers.delete(fd);
      this.#changed();
    };
  }

  /** Ends all watches. Safe to call twice. */
  close(): void {
    if (this.#isClosed) {
      return;
    }
    this.#isClosed = true;
    this.#watchers.clear();
    if (this.#isPolling) {
      this.wake();
    } else {
      this.#release();
    }
  }

  /** Ends the poll that is under way, if any; the next one sees the current watches. */
  wake(): void {
    if (reactors.has(this)) {
      signalEventFd(this.#wakeFd);
    }
  }

  // Watches often come and go in groups: one poll is started for all that happens in this turn of the event loop.
  #changed(): void {
    if (this.#isPolling) {
      this.wake();
    } else {
      this.#schedule();
    }
  }

  #schedule(): void {
    if (this.#isScheduled) {
      return;
    }
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#start();
    });
  }

  #start(): void {
    if (this.#isPolling || this.#isClosed || this.#watchers.size === 0) {
      return;
    }
    this.#polled = [...this.#watchers.values()];
    const count = this.#polled.length + 1;
    if (count * pollfd.size > this.#memory.bytes.length) {
      this.#memory = pinnedMemory(2 * count * pollfd.size);
    }
    const view = new DataView(this.#memory.bytes.buffer);
    view.setInt32(pollfd.fd, this.#wakeFd, true);
    view.setInt32(pollfd.events, POLLIN, true);
    this.#polled.forEach((watcher, i) => {
      view.setInt32((i + 1) * pollfd.size + pollfd.fd, watcher.fd, true);
      view.setInt32((i + 1) * pollfd.size + pollfd.events, POLLIN, true);
    });
    this.#isPolling = true;
    pollAsync(this.#memory.address, count, -1, (ready) => this.#polledOnce(ready, view));
  }

  #polledOnce(ready: number, view: DataView): void {
    this.#isPolling = false;
    const polled = this.#polled;
    this.#polled = [];
    if (ready > 0 && view.getInt16(pollfd.revents, true) !== 0) {
      drainEventFd(this.#wakeFd);
    }
    if (this.#isClosed) {
      this.#release();
      return;
    }
    // The callbacks come first, so that the next poll waits for what they leave.
    this.#isScheduled = true;
    for (let i = 0; i < polled.length && ready > 0; i++) {
      const events = view.getInt16((i + 1) * pollfd.size + pollfd.revents, true);
      if (events !== 0) {
        this.#deliver(polled[i]!, events);
      }
    }
    this.#isScheduled = false;
    this.#start();
  }

  #deliver(watcher: Watcher, events: number): void {
    // A watch that an earlier callback ended must not fire, not even when the fd's number is in use again.
    if (this.#watchers.get(watcher.fd) !== watcher) {
      return;
    }
    try {
      watcher.onReadable();
    } catch (error) {
      // An uncaught exception like any other callback's, but the other fds go on being served.
      queueMicrotask(() => {
        throw error;
      });
    }
    // An fd that was closed under its watch would be reported forever.
    if ((events & POLLNVAL) !== 0 && this.#watchers.get(watcher.fd) === watcher) {
      this.#watchers.delete(watcher.fd);
    }
  }

  #release(): void {
    reactors.delete(this);
    closeFd(this.#wakeFd);
  }
}
