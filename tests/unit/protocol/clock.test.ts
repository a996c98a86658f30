import { expect, it } from 'vitest';
import { every } from '../../../protocol/clock.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';

it('what comes again and again comes until it is cancelled, also by itself', () => {
  const clock = new ManualClock();
  let calls = 0;
  const timer = every(clock, 10, () => {
    calls++;
    if (calls === 3) {
      timer.cancel();
    }
  });
  clock.elapse(9);
  expect(calls).toBe(0);
  clock.elapse(100);
  expect(calls).toBe(3);
  expect(clock.pending).toBe(0);
});
