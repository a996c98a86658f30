// The clock of a thread that has Node's event loop.
import type { Clock } from '../clock.ts';

/** Real time, for what may wait, but not hold up an end: no timer keeps the process alive. */
export const backgroundClock: Clock = {
  now: () => performance.now(),
  after(milliseconds, callback) {
    // biome-ignore lint/style/noRestrictedGlobals: the clock that is taken everywhere else
    const timeout = setTimeout(callback, milliseconds).unref();
    return { cancel: () => clearTimeout(timeout) };
  },
};

/** Real time. A timer keeps the process alive until it has fired or is cancelled. */
export const processClock: Clock = {
  now: () => performance.now(),
  after(milliseconds, callback) {
    // biome-ignore lint/style/noRestrictedGlobals: the clock that is taken everywhere else
    const timeout = setTimeout(callback, milliseconds);
    return { cancel: () => clearTimeout(timeout) };
  },
};
