// How long a guest may run on after VF Enable: never so long that a slow stop comes after its first look at a VF.
import { expect, it } from 'vitest';
import { StopDelay } from '../../../vmm-glue/qemu/stop-delay.ts';

const GUEST_WAITS = 100;

function after(...stops: number[]): number {
  const delay = new StopDelay();
  for (const stop of stops) delay.stopTook(stop);
  return delay.milliseconds;
}

it('is careful before any stop was seen', () => {
  expect(after()).toBeGreaterThan(0);
  expect(after()).toBeLessThan(after(...Array<number>(50).fill(1)));
});

it('leaves room for a stop that takes twice as long as the slowest so far, and for more than that', () => {
  for (const stop of [0.5, 1, 5, 10, 20, 25]) {
    expect(after(stop) + 2 * stop).toBeLessThan(GUEST_WAITS - 20);
  }
});

it('is nothing where stops are slow', () => {
  expect(after(40)).toBe(0);
  expect(after(400)).toBe(0);
});

it('remembers a slow stop for some time, and forgets it in the end', () => {
  expect(after(60, 1, 1)).toBe(0);
  expect(after(60, ...Array<number>(60).fill(1))).toBe(after(...Array<number>(60).fill(1)));
});

it('never exceeds half of the time that a guest waits', () => {
  expect(after(...Array<number>(100).fill(0))).toBe(GUEST_WAITS / 2);
});
