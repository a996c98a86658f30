// Whether the device thread still turns: it counts its turns where the main thread can see them, and a turn that does not
// end is reported with the stack that it hangs in. For devices whose code is somebody else's.

import type { Clock, Timer } from '../../protocol/clock.ts';

const LOOK_MILLISECONDS = 250;
export const LONGEST_TURN_MILLISECONDS = 1000;

/** Shared by both threads: odd while a turn is being carried out, even while the thread waits. */
export type TurnCount = Int32Array<SharedArrayBuffer>;

export function makeTurnCount(): TurnCount {
  return new Int32Array(new SharedArrayBuffer(4));
}

/** The device thread's side: a turn begins or ends. */
export function turn(count: TurnCount): void {
  Atomics.add(count, 0, 1);
}

/** Calls back once when one turn has lasted too long; gives what ends the watch. */
export function watchTurns(count: TurnCount, clock: Clock, stuck: () => void): Timer {
  let seen = -1;
  let since = 0;
  let timer: Timer;
  const look = (): void => {
    const now = Atomics.load(count, 0);
    if (now !== seen || now % 2 === 0) {
      seen = now;
      since = clock.now();
    } else if (clock.now() - since >= LONGEST_TURN_MILLISECONDS) {
      stuck();
      return;
    }
    timer = clock.after(LOOK_MILLISECONDS, look);
  };
  look();
  return { cancel: () => timer.cancel() };
}

/** Where the other threads of this process are just now, one line a frame; only for a thread that runs JavaScript. */
export function stacksOfThreads(): string {
  const { workers = [] } = process.report.getReport() as unknown as {
    workers?: { javascriptStack?: { stack?: string[] } }[];
  };
  return workers.flatMap(({ javascriptStack }) => javascriptStack?.stack ?? []).join('\n    ');
}
