import { beforeEach, describe, expect, it } from 'vitest';
import { WorkQueue } from '../../../../backend/devices/kit/work-queue.ts';
import type { Clock, Timer } from '../../../../protocol/clock.ts';

/** Each step of a task takes this long. */
const STEP = 0.075;

/** A clock whose turns a test makes. */
class TurnClock implements Clock {
  time = 0;
  #next: (() => void)[] = [];

  now(): number {
    return this.time;
  }

  after(_milliseconds: number, callback: () => void): Timer {
    this.#next.push(callback);
    return { cancel: () => {} };
  }

  /** False where nothing is to come. */
  turn(): boolean {
    const due = this.#next;
    this.#next = [];
    for (const callback of due) {
      callback();
    }
    return due.length > 0;
  }
}

let clock: TurnClock;
let queue: WorkQueue;
let done: string[];

beforeEach(() => {
  clock = new TurnClock();
  queue = new WorkQueue(clock);
  done = [];
});

function add(name: string, steps: number, owner: object = {}): void {
  let left = steps;
  queue.add(owner, () => {
    done.push(name);
    clock.time += STEP;
    left--;
    return left > 0;
  });
}

describe('work in batches', () => {
  it('is done at once where it is short', () => {
    add('a', 2);
    expect(done).toEqual(['a', 'a']);
  });

  it('takes a bounded time of each turn, and goes on in the next', () => {
    add('a', 5);
    expect(done).toHaveLength(2);
    // Timers of the turn that it came in: its budget is used up.
    clock.turn();
    expect(done).toHaveLength(2);
    clock.turn();
    expect(done).toHaveLength(4);
    clock.turn();
    expect(done).toHaveLength(5);
  });

  it('asks in the middle of a step whether to go on', () => {
    const parts: number[] = [];
    let part = 0;
    queue.add({}, (isOver) => {
      do {
        clock.time += 0.03;
        parts.push(++part);
      } while (!isOver());
      return part < 6;
    });
    expect(parts).toEqual([1, 2, 3, 4]);
    clock.turn();
    expect(parts).toHaveLength(4);
    clock.turn();
    expect(parts).toHaveLength(8);
  });

  it('of many that come in one turn has one budget', () => {
    for (let i = 0; i < 10; i++) {
      add(`${i}`, 1);
    }
    expect(done).toHaveLength(2);
    clock.turn();
    expect(done).toHaveLength(2);
    clock.turn();
    expect(done).toHaveLength(4);
  });

  it('that left time over in its turn has the rest of it', () => {
    add('a', 1);
    add('b', 2);
    expect(done.join('')).toBe('ab');
    clock.turn();
    clock.turn();
    expect(done.join('')).toBe('abb');
  });

  it('takes turns, step by step', () => {
    add('a', 6);
    add('b', 3);
    for (let turns = 0; turns < 5; turns++) {
      clock.turn();
    }
    expect(done.join('')).toBe('aaabababa');
  });

  it('that is forgotten is not done, nor is what else its owner has', () => {
    const owner = {};
    add('a', 9, owner);
    add('b', 1, owner);
    queue.forget(owner);
    clock.turn();
    expect(done).toEqual(['a', 'a']);
  });

  it('that forgets itself while it runs ends there', () => {
    const owner = {};
    queue.add(owner, () => {
      done.push('a');
      queue.forget(owner);
      return true;
    });
    clock.turn();
    expect(done).toEqual(['a']);
  });

  it('that adds work of its own does not wait for itself', () => {
    const owner = {};
    queue.add(owner, () => {
      done.push('outer');
      add('inner', 1);
      return false;
    });
    expect(done).toEqual(['outer', 'inner']);
  });

  it('leaves no timer behind', () => {
    add('a', 7);
    while (clock.turn()) {
      expect(done.length).toBeLessThanOrEqual(7);
    }
    expect(clock.turn()).toBe(false);
  });
});
