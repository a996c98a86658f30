// How long the standard has software wait, in nanoseconds, and how exactly a guest does.

const MILLISECOND = 1e6;
export const ENABLE_WAIT = 100 * MILLISECOND;
export const DISABLE_WAIT = 1000 * MILLISECOND;
export const FLR_WAIT = 100 * MILLISECOND;
/**
 * A guest counts its wait in ticks (4 ms at HZ=250), by a clock of its own, and an emulated one on a busy machine that was
 * stopped meanwhile was seen to wait 89.8 ms for 100, and 989 for 1000: so much less by ours is no fault of a driver's.
 */
const TICK_SLACK = 20 * MILLISECOND;
const CLOCK_SLACK = 0.02;

export function isShort(waited: number, wait: number): boolean {
  return waited < wait * (1 - CLOCK_SLACK) - TICK_SLACK;
}

/** Nanoseconds for people. */
export function passed(nanoseconds: number): string {
  return `${(nanoseconds / MILLISECOND).toFixed(1)} ms`;
}
