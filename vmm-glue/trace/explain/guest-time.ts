// When a guest stood still, because it waited for an answer of ours or because the glue had stopped it, and how much time
// passed for it.

import { glueTime, type TraceEvent } from '../../../protocol/trace/events.ts';

/** A stretch in which the guest stood still; nanoseconds since the trace began. */
export interface Standstill {
  readonly from: number;
  readonly to: number;
  /** `answer`: it waited for one of ours; `stopped`: the glue had stopped it. */
  readonly why: 'answer' | 'stopped';
}

/** The stretches of a trace, found in its events as they come; an answer may be waited for when the guest is stopped. */
export class StandstillFinder {
  readonly #startedMonotonic: number;
  /** Since when the glue has the guest stopped. */
  stoppedAt: number | undefined;

  /** `startedMonotonic` is the trace's, for the glue's stamps. */
  constructor(startedMonotonic: number) {
    this.#startedMonotonic = startedMonotonic;
  }

  /** The stretch that is known to have ended by this event. */
  see(event: TraceEvent): Standstill | undefined {
    if (event.kind === 'answer' && event.of === 'access') {
      return { from: event.time - event.waited, to: event.time, why: 'answer' };
    }
    if (event.kind !== 'glue') {
      return undefined;
    }
    const at = glueTime(event, this.#startedMonotonic);
    if (event.detail.what === 'stop') {
      this.stoppedAt ??= at;
    } else if (event.detail.what === 'gap') {
      this.stoppedAt = undefined;
    } else if (event.detail.what === 'cont' && this.stoppedAt !== undefined) {
      const from = this.stoppedAt;
      this.stoppedAt = undefined;
      return { from, to: at, why: 'stopped' };
    }
    return undefined;
  }
}

/** All stretches of a trace, in order; a guest that is stopped to the end has one as well. */
export function standstills(events: readonly TraceEvent[], startedMonotonic: number): Standstill[] {
  const finder = new StandstillFinder(startedMonotonic);
  const found = events.map((event) => finder.see(event)).filter((each) => each !== undefined);
  if (finder.stoppedAt !== undefined) {
    const to = events.reduce((last, { time }) => Math.max(last, time), finder.stoppedAt);
    found.push({ from: finder.stoppedAt, to, why: 'stopped' });
  }
  return found.sort((one, other) => one.from - other.from);
}

/** No guest waits for so many pauses to pass. */
const MOST_STRETCHES = 1024;

/**
 * Time as the guest's own clock counts it. It stands still while the VMM is stopped, and runs on while a processor waits for
 * an answer: Linux, whose count of ticks is behind when the answer comes, has then slept for that much less than it meant to.
 */
export class GuestClock {
  readonly #finder: StandstillFinder;
  /** The newest, in order. */
  readonly #stretches: Standstill[] = [];

  constructor(startedMonotonic: number) {
    this.#finder = new StandstillFinder(startedMonotonic);
  }

  /** Takes the next event in; a glue tells of its stops late, and by then of those in the past. */
  see(event: TraceEvent): void {
    const stretch = this.#finder.see(event);
    if (stretch?.why === 'stopped') {
      this.#stretches.push(stretch);
      if (this.#stretches.length > MOST_STRETCHES) {
        this.#stretches.shift();
      }
    }
  }

  /** Nanoseconds of guest time between two moments. */
  between(from: number, to: number): number {
    let stood = 0;
    for (const { from: start, to: end } of this.#since(from)) {
      stood += Math.max(0, Math.min(end, to) - Math.max(start, from));
    }
    return to - from - stood;
  }

  /** The glue had the guest stopped: what comes then is the VMM's doing. */
  isStoppedAt(time: number): boolean {
    for (const { from, to } of this.#since(time)) {
      if (time >= from && time <= to) {
        return true;
      }
    }
    return false;
  }

  /** Those that had not ended by then, newest first. */
  *#since(time: number): Generator<{ readonly from: number; readonly to: number }> {
    const { stoppedAt } = this.#finder;
    if (stoppedAt !== undefined) {
      yield { from: stoppedAt, to: Number.POSITIVE_INFINITY };
    }
    for (let at = this.#stretches.length - 1; at >= 0; at--) {
      const stretch = this.#stretches[at]!;
      if (stretch.to < time) {
        return;
      }
      yield stretch;
    }
  }
}
