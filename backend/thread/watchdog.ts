// Whether the device thread still turns: it counts its turns where the main thread can see them, and a turn that does not
// end is reported with the stack that it hangs in. For devices whose code is somebody else's.

import type { Clock, Timer } from '../../protocol/clock.ts';
import { LONGEST_LOAD_MILLISECONDS } from '../devices/kind.ts';

const LOOK_MILLISECONDS = 250;
const LONGEST_TURN_MILLISECONDS = 1000;
/** The first turn is the one in which the device's code is loaded. */
const STARTING = 0;
const LOADING = 1;
const GIVEN_UP = -2;

/** Shared by both threads: odd while a turn is being carried out, even while the thread waits; below 0 where it is given up. */
export type TurnCount = Int32Array<SharedArrayBuffer>;

export function makeTurnCount(): TurnCount {
  return new Int32Array(new SharedArrayBuffer(4));
}

/** The device thread's side: a turn begins or ends. */
export function turn(count: TurnCount): void {
  Atomics.add(count, 0, 1);
}

/** The main thread's side: gives up a device whose code is not loaded yet; false where it is. */
export function giveUp(count: TurnCount): boolean {
  return [STARTING, LOADING].some(
    (expected) => Atomics.compareExchange(count, 0, expected, GIVEN_UP) === expected,
  );
}

export function isGivenUp(count: TurnCount): boolean {
  return Atomics.load(count, 0) < 0;
}

/** Calls back once when one turn has lasted too long, with the milliseconds that it had; gives what ends the watch. */
export function watchTurns(
  count: TurnCount,
  clock: Clock,
  stuck: (milliseconds: number) => void,
): Timer {
  let seen = -1;
  let since = 0;
  let timer: Timer;
  const look = (): void => {
    const now = Atomics.load(count, 0);
    const longest = now === LOADING ? LONGEST_LOAD_MILLISECONDS : LONGEST_TURN_MILLISECONDS;
    if (now !== seen || now % 2 === 0) {
      seen = now;
      since = clock.now();
    } else if (clock.now() - since >= longest) {
      stuck(longest);
      return;
    }
    timer = clock.after(LOOK_MILLISECONDS, look);
  };
  look();
  return { cancel: () => timer.cancel() };
}
