// The clock of a thread that has Node's event loop.
import type { Clock } from '../clock.ts';

/** CLOCK_MONOTONIC, which every process of this host shares. */
export const monotonicNanoseconds = (): bigint => process.hrtime.bigint();

/** Since 1970. */
export const wallClockMilliseconds = (): number => Date.now();

/** Real time, for what may wait, but not hold up an end: no timer keeps the process alive. */
export const backgroundClock: Clock = {
  // biome-ignore lint/style/noRestrictedGlobals: the clock that is taken everywhere else
  now: () => performance.now(),
  after(milliseconds, callback) {
    // biome-ignore lint/style/noRestrictedGlobals: the clock that is taken everywhere else
    const timeout = setTimeout(callback, milliseconds).unref();
    return { cancel: () => clearTimeout(timeout) };
  },
};

/** Real time. A timer keeps the process alive until it has fired or is cancelled. */
export const processClock: Clock = {
  // biome-ignore lint/style/noRestrictedGlobals: the clock that is taken everywhere else
  now: () => performance.now(),
  after(milliseconds, callback) {
    // biome-ignore lint/style/noRestrictedGlobals: the clock that is taken everywhere else
    const timeout = setTimeout(callback, milliseconds);
    return { cancel: () => clearTimeout(timeout) };
  },
};
