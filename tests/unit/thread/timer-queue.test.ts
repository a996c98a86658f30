import { beforeEach, describe, expect, it } from 'vitest';
import { TimerQueue } from '../../../backend/thread/timer-queue.ts';

let timers: TimerQueue;
let seen: string[];
const note = (name: string) => (): void => void seen.push(name);

beforeEach(() => {
  timers = new TimerQueue();
  seen = [];
});

describe('the timers of the loop', () => {
  it('are called in the order in which they fall due, equal ones in the order in which they were set', () => {
    timers.add(3, note('third'));
    timers.add(1, note('first'));
    timers.add(2, note('second'));
    timers.add(2, note('second again'));
    timers.add(9, note('later'));
    timers.fire(3);
    expect(seen).toEqual(['first', 'second', 'second again', 'third']);
    expect(timers.size).toBe(1);
  });

  it('are gone once cancelled, whichever of equal ones it is', () => {
    const cancelled = [5, 1, 5, 7].map((due) => timers.add(due, note(`${due}`)));
    timers.add(5, note('kept'));
    for (const timer of cancelled) {
      timer.cancel();
    }
    expect(timers.size).toBe(1);
    timers.fire(10);
    expect(seen).toEqual(['kept']);
  });

  it('may cancel one another, and themselves when they were called', () => {
    const itself = timers.add(1, () => {
      seen.push('first');
      itself.cancel();
      second.cancel();
    });
    const second = timers.add(1, note('second'));
    timers.add(1, note('third'));
    timers.fire(1);
    expect(seen).toEqual(['first', 'third']);
  });

  it('say how long it is to the next one', () => {
    expect(timers.untilNext(0)).toBeUndefined();
    timers.add(8, note('later'));
    timers.add(5, note('next'));
    expect(timers.untilNext(2)).toBe(3);
    expect(timers.untilNext(6)).toBe(0);
  });
});
