// The time that passes for a guest: while an answer of ours is held, or the glue has its VMM stopped, it stands still.

import type { TraceEvent } from '../../protocol/trace/events.ts';

/** A stretch in which the guest stood still; nanoseconds since the trace began. */
export interface Standstill {
  readonly from: number;
  readonly to: number;
  /** `answer`: it waited for one of ours; `stopped`: the glue had stopped it. */
  readonly why: 'answer' | 'stopped';
}

/** All stretches of a trace, in order, none overlapping another. `startedMonotonic` is the trace's, for the glue's stamps. */
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
  return merged(found.sort((one, other) => one.from - other.from));
}

function merged(stretches: readonly Standstill[]): Standstill[] {
  const result: Standstill[] = [];
  for (const each of stretches) {
    const last = result.at(-1);
    if (last !== undefined && each.from <= last.to) {
      const why = last.why === 'stopped' || each.why === 'stopped' ? 'stopped' : 'answer';
      result[result.length - 1] = { from: last.from, to: Math.max(last.to, each.to), why };
    } else {
      result.push(each);
    }
  }
  return result;
}

export class GuestClock {
  readonly #stretches: readonly Standstill[];

  constructor(stretches: readonly Standstill[]) {
    this.#stretches = stretches;
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
    return this.#stretches.some(
      ({ from, to, why }) => why === 'stopped' && time >= from && time <= to,
    );
  }
}
