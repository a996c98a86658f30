import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createEventFd, drainEventFd, signalEventFd } from '../../../../protocol/unix/eventfd.ts';
import { socketPair } from '../../../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import { PollSet } from '../../../../protocol/unix/poll-set.ts';

describe('PollSet', () => {
  let set: PollSet;
  let events: number[];
  beforeEach(() => {
    set = new PollSet();
    events = Array.from({ length: 4 }, createEventFd);
  });
  afterEach(() => {
    set.close();
    events.forEach(closeFd);
  });

  function readyFds(): number[] {
    return Array.from(set.ready(), ({ fd }) => fd).sort((a, b) => a - b);
  }

  function signal(...fds: (number | undefined)[]): void {
    for (const fd of fds) {
      signalEventFd(fd!);
    }
  }

  it('finds nothing ready in an empty set', () => {
    expect(set.wait(0)).toBe(0);
    expect(readyFds()).toEqual([]);
  });

  it('tells which fds are readable', () => {
    for (const fd of events) {
      set.set(fd, { readable: true });
    }
    signal(events[1], events[3]);
    expect(set.wait(-1)).toBe(2);
    expect(readyFds()).toEqual([events[1], events[3]]);
  });

  it('tells the same again while an fd stays readable', () => {
    set.set(events[0]!, { readable: true });
    signal(events[0]);
    for (let i = 0; i < 3; i++) {
      expect(set.wait(0)).toBe(1);
      expect(readyFds()).toEqual([events[0]]);
    }
    drainEventFd(events[0]!);
    expect(set.wait(0)).toBe(0);
    expect(readyFds()).toEqual([]);
  });

  it('tells each fd once for each wait', () => {
    set.set(events[0]!, { readable: true });
    signal(events[0]);
    set.wait(0);
    expect(readyFds()).toEqual([events[0]]);
    expect(readyFds()).toEqual([]);
  });

  it('tells readable and writable apart', () => {
    const [a, b] = socketPair();
    set.set(a, { readable: true, writable: true });
    set.wait(0);
    expect([...set.ready()]).toEqual([{ fd: a, readable: false, writable: true, hangup: false }]);
    set.set(a, { readable: true });
    expect(set.wait(0)).toBe(0);
    closeFd(a);
    closeFd(b);
  });

  it('reports a hang-up whatever is awaited', () => {
    const [a, b] = socketPair();
    set.set(a, {});
    closeFd(b);
    set.wait(-1);
    expect([...set.ready()]).toEqual([{ fd: a, readable: false, writable: false, hangup: true }]);
    closeFd(a);
  });

  it('refuses an fd that is not open', () => {
    expect(() => set.set(9999, { readable: true })).toThrow('EBADF');
    expect(set.size).toBe(0);
  });

  it('does not tell of an fd that was closed by mistake before it was removed', () => {
    set.set(events[0]!, { readable: true });
    signal(events[0]);
    closeFd(events[0]!);
    expect(set.wait(0)).toBe(0);
    set.remove(events[0]!);
    expect(set.size).toBe(0);
    events[0] = createEventFd();
  });

  it('waits as quickly for one of many fds as for one of few', () => {
    const many = Array.from({ length: 1000 }, createEventFd);
    const quickest = (): number => {
      let least = Number.POSITIVE_INFINITY;
      for (let round = 0; round < 50; round++) {
        const began = performance.now();
        for (let wait = 0; wait < 100; wait++) {
          set.wait(0);
          readyFds();
        }
        least = Math.min(least, performance.now() - began);
      }
      return least;
    };
    set.set(events[0]!, { readable: true });
    signal(events[0]);
    quickest();
    const ofFew = quickest();
    for (const fd of many) {
      set.set(fd, { readable: true });
    }
    expect(quickest()).toBeLessThan(4 * ofFew);
    many.forEach(closeFd);
  });

  it('changes what is awaited without adding a second entry', () => {
    set.set(events[0]!, { readable: true });
    set.set(events[0]!, { readable: true, writable: false });
    expect(set.size).toBe(1);
  });

  it('forgets a removed fd, and only that', () => {
    for (const fd of events) {
      set.set(fd, { readable: true });
    }
    signal(...events);
    set.remove(events[1]!);
    set.remove(9999);
    expect(set.wait(0)).toBe(3);
    expect(readyFds()).toEqual([events[0], events[2], events[3]]);
  });

  it('shows every other fd exactly once while each handler removes its own', () => {
    for (const fd of events) {
      set.set(fd, { readable: true });
    }
    signal(...events);
    set.wait(0);
    const seen: number[] = [];
    for (const { fd } of set.ready()) {
      seen.push(fd);
      set.remove(fd);
    }
    expect(seen.sort((a, b) => a - b)).toEqual(events);
    expect(set.size).toBe(0);
  });

  it('never shows an fd that an earlier handler removed', () => {
    for (const fd of events) {
      set.set(fd, { readable: true });
    }
    signal(...events);
    set.wait(0);
    const seen: number[] = [];
    for (const { fd } of set.ready()) {
      seen.push(fd);
      for (const other of events) {
        if (other !== fd) {
          set.remove(other);
        }
      }
    }
    expect(seen).toHaveLength(1);
  });

  it('shows no fd that was added during the walk, not even under a number that was ready', () => {
    set.set(events[0]!, { readable: true });
    set.set(events[1]!, { readable: true });
    signal(events[0], events[1]);
    set.wait(0);
    const seen: number[] = [];
    for (const { fd } of set.ready()) {
      seen.push(fd);
      const other = fd === events[0]! ? events[1]! : events[0]!;
      set.remove(other);
      set.set(other, { readable: true });
    }
    expect(seen).toHaveLength(1);
  });

  it('holds far more fds than it starts with', () => {
    const many = Array.from({ length: 300 }, createEventFd);
    for (const fd of many) {
      set.set(fd, { readable: true });
    }
    signal(many[0], many[150], many[299]);
    expect(set.wait(0)).toBe(3);
    expect(readyFds()).toEqual([many[0], many[150], many[299]]);
    many.forEach(closeFd);
  });

  it('waits no longer than asked', () => {
    set.set(events[0]!, { readable: true });
    expect(set.wait(1)).toBe(0);
  });

  it('allocates nothing worth naming while it waits', () => {
    set.set(events[0]!, { readable: true });
    signal(events[0]);
    const rounds = 100_000;
    const turn = (): number => {
      let seen = 0;
      for (let i = 0; i < rounds; i++) {
        set.wait(0);
        for (const entry of set.ready()) {
          seen += entry.readable ? 1 : 0;
        }
      }
      return seen;
    };
    turn();
    const before = process.memoryUsage().heapUsed;
    expect(turn()).toBe(rounds);
    expect((process.memoryUsage().heapUsed - before) / rounds).toBeLessThan(16);
  });
});
