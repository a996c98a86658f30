// Looks through a trace for what a PF driver's author wants to know.

import type { TraceDescription } from '../../protocol/trace/description.ts';
import type { TraceEvent } from '../../protocol/trace/events.ts';
import { Naming } from '../reading/naming.ts';
import { GuestModel } from './guest-model.ts';
import { GuestClock, standstills } from './guest-time.ts';
import { type Finding, type Grounds, RULES } from './rules.ts';

export interface Explanation {
  readonly findings: readonly Finding[];
  readonly grounds: Grounds;
  /** Rules that could not be judged, and why. */
  readonly unjudged: readonly { readonly rule: string; readonly why: string }[];
}

export function explain(
  events: readonly TraceEvent[],
  description: TraceDescription,
  startedMonotonic: number,
): Explanation {
  const grounds = groundsOf(events);
  const findings: Finding[] = [];
  const model = new GuestModel(
    new GuestClock(standstills(events, startedMonotonic)),
    description.isFromStart && events[0]?.kind !== 'gap',
  );
  const unjudged: { rule: string; why: string }[] = [];
  const watchers = RULES.flatMap((rule) => {
    const why = rule.unjudged?.(grounds);
    if (why !== undefined) {
      unjudged.push({ rule: rule.id, why });
      return [];
    }
    return [
      rule.watch(
        model,
        (finding) => findings.push({ rule: rule.id, ...finding }),
        description.totalVfs,
      ),
    ];
  });
  const naming = new Naming(description);
  for (const event of events) {
    for (const named of naming.name(event)) {
      const observation = model.observe(named);
      for (const watcher of watchers) {
        watcher.see(observation);
      }
      model.follow(observation);
    }
  }
  const end = events.at(-1)?.time ?? 0;
  for (const watcher of watchers) {
    watcher.end?.(end);
  }
  return { findings: findings.sort((one, other) => one.time - other.time), grounds, unjudged };
}

function groundsOf(events: readonly TraceEvent[]): Grounds {
  let mode: Grounds['mode'];
  const unseen = new Set<string>();
  for (const event of events) {
    if (event.kind === 'session' && event.detail.what === 'agreed') {
      const { role, hotplug } = event.detail as { role?: string; hotplug?: { role?: string } };
      if (role === 'glue' || hotplug?.role === 'glue') {
        mode = 'glue';
      } else if (hotplug !== undefined) {
        mode ??= 'vmm';
      }
    } else if (event.kind === 'mapped') {
      unseen.add(`${event.function} region ${event.detail.region}`);
    }
  }
  const lastAccess = events.findLastIndex(({ kind }) => kind === 'access');
  return {
    mode,
    hasGlueEvents: events.some(({ kind }) => kind === 'glue'),
    // A gap at the very start is what came before, and one at the end what came after: all between them is known.
    hasGaps: events.some(
      (event, position) =>
        position > 0 &&
        position < lastAccess &&
        (event.kind === 'gap' || (event.kind === 'glue' && event.detail.what === 'gap')),
    ),
    unseen: [...unseen],
  };
}
