import { describe, expect, it, vi } from 'vitest';
import { askUntil, retryUntil, within } from '../../../protocol/retry.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';

const options = (
  clock: ManualClock,
  more: { isOver?: () => boolean; signal?: AbortSignal } = {},
) => ({
  clock,
  firstMilliseconds: 10,
  lastMilliseconds: 40,
  signal: new AbortController().signal,
  isOver: () => false,
  ...more,
});

/** Lets what waits for a promise that has settled go on. */
const settle = async (): Promise<void> => {
  for (let round = 0; round < 10; round++) {
    await Promise.resolve();
  }
};

describe('trying again', () => {
  it('waits twice as long each time, up to a limit', async () => {
    const clock = new ManualClock();
    const at: number[] = [];
    const attempt = async (): Promise<string> => {
      at.push(clock.now());
      if (at.length < 6) {
        throw new Error('not yet');
      }
      return 'there';
    };
    const result = retryUntil(attempt, options(clock));
    for (let time = 0; time < 200; time += 10) {
      await settle();
      clock.elapse(10);
    }
    expect(await result).toBe('there');
    expect(at).toEqual([0, 10, 30, 70, 110, 150]);
  });

  it('gives the error after which it is over', async () => {
    const attempt = vi.fn().mockRejectedValue(new Error('no'));
    const result = retryUntil(attempt, options(new ManualClock(), { isOver: () => true }));
    await expect(result).rejects.toThrow('no');
    expect(attempt).toHaveBeenCalledTimes(1);
  });

  it('ends at once when told, and leaves no timer', async () => {
    const clock = new ManualClock();
    const end = new AbortController();
    const attempt = vi.fn().mockRejectedValue(new Error('no'));
    const result = retryUntil(attempt, options(clock, { signal: end.signal }));
    await settle();
    end.abort();
    await expect(result).rejects.toThrow('no');
    expect(attempt).toHaveBeenCalledTimes(1);
    expect(clock.pending).toBe(0);
  });
});

describe('asking until an answer is final', () => {
  const patience = (clock: ManualClock) => ({
    clock,
    patienceMilliseconds: 100,
    stepMilliseconds: 10,
  });

  /** Lets time pass step by step, as long as somebody waits for it. */
  async function passTime(clock: ManualClock): Promise<void> {
    for (await settled(); clock.pending > 0; await settled()) {
      clock.elapse(10);
    }
  }
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  it('gives the first final answer, and asks no more', async () => {
    const clock = new ManualClock();
    let asked = 0;
    const answer = askUntil(
      () => ++asked,
      (count) => count === 3,
      patience(clock),
    );
    await passTime(clock);
    expect(await answer).toBe(3);
    expect([asked, clock.now()]).toEqual([3, 20]);
  });

  it('gives the last answer when patience is over', async () => {
    const clock = new ManualClock();
    const answer = askUntil(
      () => clock.now(),
      () => false,
      patience(clock),
    );
    await passTime(clock);
    expect(await answer).toBe(110);
  });
});

describe('an answer that is waited for within a time', () => {
  const tooLate = () => new Error('too late');

  it('is given, and nothing waits on', async () => {
    const clock = new ManualClock();
    expect(await within(clock, 10, Promise.resolve(7), tooLate)).toBe(7);
    expect(clock.pending).toBe(0);
  });

  it('rejects as it does', async () => {
    const answer = Promise.reject(new Error('gone'));
    await expect(within(new ManualClock(), 10, answer, tooLate)).rejects.toThrow('gone');
  });

  it('rejects when the time has passed, whatever comes of it later', async () => {
    const clock = new ManualClock();
    let fail = (_: Error): void => {};
    const answer = new Promise<never>((_, reject) => {
      fail = reject;
    });
    const result = within(clock, 10, answer, tooLate);
    clock.elapse(10);
    await expect(result).rejects.toThrow('too late');
    fail(new Error('late'));
  });
});
