// How long the standard has software wait, in nanoseconds, and how exactly a guest does.

import { GUEST_WAIT_MILLISECONDS } from '../../../protocol/hotplug/timing.ts';

const MILLISECOND = 1e6;
export const ENABLE_WAIT = GUEST_WAIT_MILLISECONDS * MILLISECOND;
export const DISABLE_WAIT = 1000 * MILLISECOND;
export const FLR_WAIT = 100 * MILLISECOND;
/**
 * A guest counts its wait in ticks (4 ms at HZ=250), by a clock of its own, and an emulated one on a busy machine that was
 * stopped meanwhile was seen to wait 89.8 ms for 100, and 989 for 1000: so much less by ours is no fault of a driver's.
 */
const TICK_SLACK = 20 * MILLISECOND;
const CLOCK_SLACK = 0.02;
/**
 * A busy host carries a guest's write late, and its ticks as well: waits of 60 ms for 100 were seen, and of 649 for 1000. How
 * late is not known, but it is no longer than the guest had no answer to a read before; and beyond this part of the wait,
 * nobody is taken to be so late: who does not wait at all is found on every host.
 */
const MOST_LATE = 0.6;

/** What a guest waited after a write of its; nanoseconds of its time. */
export interface Waited {
  readonly waited: number;
  /** How long before the write it had no answer to a read. */
  readonly unheard: number;
}

export function isShort({ waited, unheard }: Waited, wait: number): boolean {
  const late = Math.min(unheard, wait * MOST_LATE);
  return waited + late < wait * (1 - CLOCK_SLACK) - TICK_SLACK;
}

/** Nanoseconds for people. */
export function passed(nanoseconds: number): string {
  return `${(nanoseconds / MILLISECOND).toFixed(1)} ms`;
}
