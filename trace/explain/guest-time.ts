// When a guest stood still, because it waited for an answer of ours or because the glue had stopped it, and how much time
// passed for it.

import type { TraceEvent } from '../../protocol/trace/events.ts';

/** A stretch in which the guest stood still; nanoseconds since the trace began. */
export interface Standstill {
  readonly from: number;
  readonly to: number;
  /** `answer`: it waited for one of ours; `stopped`: the glue had stopped it. */
  readonly why: 'answer' | 'stopped';
}

/** All stretches of a trace, in order; an answer may be waited for when the guest is stopped. `startedMonotonic` is the trace's, for the glue's stamps. */
export function standstills(events: readonly TraceEvent[], startedMonotonic: number): Standstill[] {
  const found: Standstill[] = [];
  let stoppedAt: number | undefined;
  for (const event of events) {
    if (event.kind === 'answer' && event.of === 'access') {
      found.push({ from: event.time - event.waited, to: event.time, why: 'answer' });
    } else if (event.kind === 'glue') {
      const at = Number(event.detail.at) * 1e6 - startedMonotonic;
      if (event.detail.what === 'stop') {
        stoppedAt ??= at;
      } else if (event.detail.what === 'cont' && stoppedAt !== undefined) {
        found.push({ from: stoppedAt, to: at, why: 'stopped' });
        stoppedAt = undefined;
      }
    }
  }
  return found.sort((one, other) => one.from - other.from);
}

/**
 * Time as the guest's own clock counts it. It stands still while the VMM is stopped, and runs on while a processor waits for
 * an answer: Linux, whose count of ticks is behind when the answer comes, has then slept for that much less than it meant to.
 */
export class GuestClock {
  readonly #stretches: readonly Standstill[];

  constructor(stretches: readonly Standstill[]) {
    this.#stretches = stretches.filter(({ why }) => why === 'stopped');
  }

  /** Nanoseconds of guest time between two moments. */
  between(from: number, to: number): number {
    let stood = 0;
    for (const { from: start, to: end } of this.#stretches) {
      stood += Math.max(0, Math.min(end, to) - Math.max(start, from));
    }
    return to - from - stood;
  }

  /** The glue had the guest stopped: what comes then is the VMM's doing. */
  isStoppedAt(time: number): boolean {
    return this.#stretches.some(({ from, to }) => time >= from && time <= to);
  }
}
