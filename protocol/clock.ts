// Time as a port: whoever waits is given a clock, so that a test lets the time pass. unix/process-clock.ts has Node's,
// the device thread's loop is one of its own.

/** A call that is still to come. */
export interface Timer {
  /** The call does not come any more; harmless once it has. */
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since some moment that stays the same. */
  now(): number;
  /** Calls back once, when so many milliseconds have passed. */
  after(milliseconds: number, callback: () => void): Timer;
}

/** Calls back again and again, each time when so many milliseconds have passed. */
export function every(clock: Clock, milliseconds: number, callback: () => void): Timer {
  let next: Timer;
  const begin = (): void => {
    next = clock.after(milliseconds, () => {
      begin();
      callback();
    });
  };
  begin();
  return { cancel: () => next.cancel() };
}
