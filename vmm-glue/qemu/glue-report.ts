// What the glue does in QEMU's monitor, told to its backends for their traces: gathered for a moment, so that telling costs
// the guest's pause nothing.

import type { Clock, Timer } from '../../protocol/clock.ts';
import {
  type GlueEvent,
  type GlueEvents,
  MAX_GLUE_EVENTS,
} from '../../protocol/hotplug/messages.ts';

const GATHER_MILLISECONDS = 50;

export interface ReportTaker {
  reportGlueEvents?(events: GlueEvents): void;
}

export class GlueReport {
  readonly #clock: Clock;
  readonly #takers: () => readonly ReportTaker[];
  #events: GlueEvent[] = [];
  #lost = 0;
  #timer: Timer | undefined;

  constructor(clock: Clock, takers: () => readonly ReportTaker[]) {
    this.#clock = clock;
    this.#takers = takers;
  }

  /** A command was answered; times in nanoseconds of CLOCK_MONOTONIC. */
  command(text: string, askedAt: bigint, answeredAt: bigint): void {
    // What is lost came before what is told: a `cont` that nobody hears of would have the guest stand still.
    if (this.#events.length >= MAX_GLUE_EVENTS) {
      this.#events.shift();
      this.#lost++;
    }
    const what = text === 'stop' || text === 'cont' ? text : 'command';
    // The guest stands still once `stop` is answered, and may run from the moment when `cont` is asked for.
    const at = what === 'stop' ? answeredAt : askedAt;
    this.#events.push({ what, text, at, took: answeredAt - askedAt });
    this.#timer ??= this.#clock.after(GATHER_MILLISECONDS, () => this.flush());
  }

  flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#events.length === 0) {
      return;
    }
    const report = { events: this.#events, lost: this.#lost };
    this.#events = [];
    this.#lost = 0;
    for (const taker of this.#takers()) {
      taker.reportGlueEvents?.(report);
    }
  }
}
