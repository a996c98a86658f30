// How much is done in one pause: by the commands, by the time so far, and by what steps of before took.
import { expect, it } from 'vitest';
import { PauseBudget } from '../../../vmm-glue/qemu/pause-budget.ts';

const BEGAN = 1000;

/** Begun for the first time, where what letting the guest go takes is not known. */
function freshBudget(): PauseBudget {
  const fresh = new PauseBudget({ milliseconds: 5, commands: 8 });
  fresh.begin(BEGAN);
  return fresh;
}

/** Begun anew after a pause in which nothing took time. */
function budget(): PauseBudget {
  const used = freshBudget();
  used.ended(0);
  used.begin(BEGAN);
  return used;
}

it('one step is done in each pause, whatever it takes', () => {
  const paused = budget();
  expect(paused.hasRoom(20, BEGAN + 30)).toBe(true);
});

it('one step is done in the first pause, since letting the guest go may take any time', () => {
  const paused = freshBudget();
  expect(paused.hasRoom(2, BEGAN)).toBe(true);
  paused.did(2, 0);
  expect(paused.hasRoom(2, BEGAN)).toBe(false);
});

it('further steps are done while their commands fit', () => {
  const paused = budget();
  paused.did(4, 0);
  expect(paused.hasRoom(4, BEGAN)).toBe(true);
  expect(paused.hasRoom(5, BEGAN)).toBe(false);
});

it('a step is begun only where it ends in time, if it takes as long as the one before', () => {
  const paused = budget();
  paused.did(2, 2);
  expect(paused.hasRoom(2, BEGAN + 3)).toBe(true);
  expect(paused.hasRoom(2, BEGAN + 3.1)).toBe(false);
});

it('the stop counts, and so does what letting the guest go took the last time', () => {
  const paused = budget();
  paused.did(2, 1);
  paused.ended(1.5);
  paused.begin(BEGAN + 100);
  paused.did(2, 1);
  expect(paused.hasRoom(2, BEGAN + 102.5)).toBe(true);
  expect(paused.hasRoom(2, BEGAN + 102.6)).toBe(false);
});

it('a long step is remembered over the pauses that follow, and forgotten by and by', () => {
  const paused = budget();
  paused.did(1, 8);
  const roomAfter: boolean[] = [];
  for (let pause = 0; pause < 3; pause++) {
    paused.begin(BEGAN);
    paused.did(1, 1);
    roomAfter.push(paused.hasRoom(1, BEGAN + 1));
  }
  expect(roomAfter).toEqual([false, true, true]);
});
