import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EventLoop } from '../../../backend/thread/event-loop.ts';
import { createEventFd, drainEventFd, signalEventFd } from '../../../protocol/unix/eventfd.ts';
import { socketPair } from '../../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';

let loop: EventLoop;
let fds: number[];
let seen: string[];

beforeEach(() => {
  loop = new EventLoop(0);
  fds = Array.from({ length: 3 }, createEventFd);
  seen = [];
});
afterEach(() => {
  loop.close();
  fds.forEach(closeFd);
});

/** Watches an eventfd, and notes its name when it is signalled. */
function watch(fd: number, name: string, then: () => void = () => {}): void {
  loop.watch(fd, {
    readable: () => {
      drainEventFd(fd);
      seen.push(name);
      then();
    },
  });
}

describe('the device thread’s loop', () => {
  it('calls back for each fd that is readable, and ends when it is told to', () => {
    watch(fds[0]!, 'first', () => signalEventFd(fds[1]!));
    watch(fds[1]!, 'second', () => loop.stop());
    signalEventFd(fds[0]!);
    loop.run();
    expect(seen).toEqual(['first', 'second']);
  });

  it('tells when a turn began: as late as somebody asks, and the same to all who ask in it', () => {
    let now = 0;
    const timed = new EventLoop(0, undefined, { now: () => now });
    const told: number[] = [];
    const ask = (): void => {
      now += 10;
      told.push(timed.turnStart());
      now += 10;
      told.push(timed.turnStart());
    };
    timed.soon(() => {
      ask();
      timed.soon(() => {
        ask();
        timed.stop();
      });
    });
    timed.run();
    expect(told).toEqual([10, 10, 30, 30]);
  });

  it('calls timers back that are due, those set by timers too, and no other', () => {
    loop.after(3_600_000, () => seen.push('an hour later'));
    loop.after(1, () => {
      seen.push('outer');
      loop.after(0, () => {
        seen.push('inner');
        loop.stop();
      });
    });
    loop.run();
    expect(seen).toEqual(['outer', 'inner']);
  });

  it('calls timers back also while fds keep it busy', () => {
    watch(fds[0]!, 'busy', () => signalEventFd(fds[0]!));
    signalEventFd(fds[0]!);
    loop.after(5, () => {
      seen.push('timer');
      loop.stop();
    });
    loop.run();
    expect(seen.at(-1)).toBe('timer');
  });

  it('calls timers back while it spins', () => {
    loop = new EventLoop(50_000);
    watch(fds[0]!, 'event');
    signalEventFd(fds[0]!);
    loop.after(1, () => loop.stop());
    loop.run();
    expect(seen).toEqual(['event']);
  });

  it('does not call back for an fd that was unwatched in the same round', () => {
    for (const [index, fd] of fds.entries()) {
      watch(fd, `fd ${index}`, () => {
        for (const other of fds) {
          if (other !== fd) {
            loop.unwatch(other);
          }
        }
        loop.after(0, () => loop.stop());
      });
      signalEventFd(fd);
    }
    loop.run();
    expect(seen).toHaveLength(1);
  });

  it('goes on when a callback throws, and tells whoever made it', () => {
    const faults: unknown[] = [];
    loop = new EventLoop(0, (error) => faults.push(error));
    const fail = (what: string) => (): never => {
      throw what;
    };
    watch(fds[0]!, 'first', fail('of an fd'));
    watch(fds[1]!, 'second');
    signalEventFd(fds[0]!);
    signalEventFd(fds[1]!);
    loop.soon(fail('soon'));
    loop.soon(() => seen.push('soon'));
    loop.after(0, fail('of a timer'));
    loop.after(1, () => loop.stop());
    loop.run();
    expect(seen.sort()).toEqual(['first', 'second', 'soon']);
    expect(faults.sort()).toEqual(['of a timer', 'of an fd', 'soon']);
  });

  it('calls what is to come soon in the next turn, once, also where this one began with nothing', () => {
    let left = 3;
    const again = (): void => {
      seen.push('soon');
      left--;
      if (left > 0) {
        loop.soon(again);
      }
    };
    watch(fds[0]!, 'fd', () => loop.soon(again));
    loop.turnEnded = () => {
      seen.push('end');
      if (seen.length > 7) {
        loop.stop();
      }
    };
    signalEventFd(fds[0]!);
    loop.run();
    expect(seen).toEqual(['fd', 'end', 'soon', 'end', 'soon', 'end', 'soon', 'end']);
  });

  it('calls what is to come soon behind what is ready, and once a turn', () => {
    watch(fds[0]!, 'fd');
    const again = (): void => {
      seen.push('soon');
      if (seen.length < 5) {
        signalEventFd(fds[0]!);
        loop.soon(again);
      } else {
        loop.stop();
      }
    };
    signalEventFd(fds[0]!);
    loop.soon(again);
    loop.run();
    expect(seen).toEqual(['fd', 'soon', 'fd', 'soon', 'fd', 'soon']);
  });

  it('waits for what is awaited of an fd, and for nothing else', () => {
    const [ours, theirs] = socketPair();
    loop.watch(ours, {
      readable: () => seen.push('readable'),
      writable: () => {
        seen.push('writable');
        loop.stop();
      },
    });
    loop.await(ours, { readable: false, writable: true });
    loop.run();
    loop.await(ours, { readable: false, writable: false });
    loop.after(1, () => loop.stop());
    loop.run();
    expect(seen).toEqual(['writable']);
    closeFd(ours);
    closeFd(theirs);
  });

  it('tells a hang-up as something to read', () => {
    const [ours, theirs] = socketPair();
    loop.watch(ours, {
      readable: () => {
        seen.push('gone');
        loop.stop();
      },
    });
    loop.await(ours, { readable: false, writable: false });
    closeFd(theirs);
    loop.run();
    expect(seen).toEqual(['gone']);
    closeFd(ours);
  });
});
