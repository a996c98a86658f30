// Looks through a trace for what a PF driver's author wants to know, event by event, in as much memory as a few thousand
// events take: of a file, or of a recording that is being made.

import type { TraceDescription } from '../../../protocol/trace/description.ts';
import type { TraceEvent } from '../../../protocol/trace/events.ts';
import { Naming } from '../reading/naming.ts';
import { Findings } from './findings.ts';
import { type Grounds, GroundsFinder } from './grounds.ts';
import { GuestModel } from './guest-model.ts';
import { GuestClock } from './guest-time.ts';
import { ResetAccesses } from './reset-accesses.ts';
import type { Finding, Rule, Watcher } from './rule.ts';
import { RULES } from './rules.ts';

export interface Explanation {
  /** By their time; the first of each rule, where there are many. */
  readonly findings: readonly Finding[];
  /** How many more there are, by rule. */
  readonly more: readonly { readonly rule: string; readonly count: number }[];
  readonly grounds: Grounds;
  /** Regions that may have been mapped before the recording begins, and so are unseen, as `pf region 0`. */
  readonly mappedBefore: readonly string[];
  /** Rules that could not be judged, and why. */
  readonly unjudged: readonly Reason[];
  /** Rules that may have missed something, and why. */
  readonly incomplete: readonly Reason[];
}

export interface Reason {
  readonly rule: string;
  readonly why: string;
}

/**
 * A glue tells late of when it had the guest stopped: an event is judged when so many have come after it, or, of a
 * recording that is being made, so long after it.
 */
const HELD_EVENTS = 16 * 1024;
const HELD_NANOSECONDS = 2e9;

export class Judgement {
  readonly #description: TraceDescription;
  readonly #clock: GuestClock;
  readonly #naming: Naming;
  readonly #grounds = new GroundsFinder();
  readonly #findings = new Findings();
  readonly #resets: ResetAccesses;
  #model: GuestModel | undefined;
  #watchers: readonly Watcher[] = [];
  /** Those that are not judged yet, from `#at` on. */
  #held: TraceEvent[] = [];
  #at = 0;
  #time = 0;

  /** `startedMonotonic`: nanoseconds, for the glue's stamps. */
  constructor(description: TraceDescription, startedMonotonic: number) {
    this.#description = description;
    this.#clock = new GuestClock(startedMonotonic);
    this.#naming = new Naming(description);
    this.#resets = new ResetAccesses(this.#naming);
  }

  /** Takes in the next event of the trace. */
  see(event: TraceEvent): void {
    this.#grounds.see(event);
    this.#clock.see(event);
    this.#resets.see(event);
    this.#held.push(event);
    while (this.#held.length - this.#at > (this.#grounds.hasGlue ? HELD_EVENTS : 0)) {
      this.#judgeNext();
    }
  }

  /** Judges what can be judged by a moment, in nanoseconds since the trace began, of a recording that goes on. */
  until(time: number): void {
    while (this.#at < this.#held.length && this.#held[this.#at]!.time <= time - HELD_NANOSECONDS) {
      this.#judgeNext();
    }
  }

  /** There are no more events. */
  end(): void {
    while (this.#at < this.#held.length) {
      this.#judgeNext();
    }
    for (const watcher of this.#watchers) {
      watcher.end?.(this.#time);
    }
  }

  get explanation(): Explanation {
    const { grounds } = this.#grounds;
    const isJudged = this.#isJudged(grounds);
    return {
      findings: this.#findings.of(isJudged),
      more: this.#findings.more(isJudged),
      grounds,
      mappedBefore: grounds.startsLate ? this.#mappable() : [],
      unjudged: reasons(({ unjudged }) => unjudged?.(grounds)),
      incomplete: reasons((rule) => (isJudged(rule.id) ? rule.misses?.(grounds) : undefined)),
    };
  }

  #mappable(): string[] {
    const { pf, vf } = this.#description;
    return [
      ...pf.mappable.map((region) => `pf region ${region}`),
      ...vf.mappable.map((region) => `VFs region ${region}`),
    ];
  }

  /** The newest finding. */
  get last(): Finding | undefined {
    return this.#findings.last(this.#isJudged(this.#grounds.grounds));
  }

  #isJudged(grounds: Grounds): (rule: string) => boolean {
    const unjudged = new Set(
      RULES.filter((rule) => rule.unjudged?.(grounds) !== undefined).map(({ id }) => id),
    );
    return (rule) => !unjudged.has(rule);
  }

  #judgeNext(): void {
    const event = this.#held[this.#at]!;
    this.#at++;
    if (this.#at === this.#held.length || this.#at > HELD_EVENTS) {
      this.#held = this.#held.slice(this.#at);
      this.#at = 0;
    }
    this.#time = event.time;
    const model = this.#modelFrom(event);
    for (const named of this.#naming.name(event)) {
      const observation = model.observe(named, this.#resets.has(event));
      for (const watcher of this.#watchers) {
        watcher.see(observation);
      }
      model.follow(observation);
    }
  }

  #modelFrom(first: TraceEvent): GuestModel {
    if (this.#model === undefined) {
      const { isFromStart, totalVfs } = this.#description;
      const model = new GuestModel(this.#clock, isFromStart && first.kind !== 'gap');
      this.#model = model;
      this.#watchers = RULES.map(({ id, watch }) =>
        watch(model, (finding) => this.#findings.add({ rule: id, ...finding }), totalVfs),
      );
    }
    return this.#model;
  }
}

function reasons(reasonOf: (rule: Rule) => string | undefined): Reason[] {
  return RULES.flatMap((rule) => {
    const why = reasonOf(rule);
    return why === undefined ? [] : [{ rule: rule.id, why }];
  });
}
