// Where two recordings part: for each function the first access that is not the same in both, whatever the times.

import { byNumber, line, NO_COLOURS } from './lines.ts';
import type { NamedEvent } from './naming.ts';

/** The accesses of one function, in order. */
type Accesses = readonly NamedEvent[];

/** Accesses before the parting that are shown. */
const CONTEXT = 3;

/** Lines for people; none where nothing differs. */
export function differences(a: Iterable<NamedEvent>, b: Iterable<NamedEvent>): string[] {
  const [one, other] = [byFunction(a), byFunction(b)];
  const names = new Set([...one.keys(), ...other.keys()]);
  return [...names]
    .sort(byNumber)
    .flatMap((name) => parting(name, one.get(name) ?? [], other.get(name) ?? []));
}

function byFunction(events: Iterable<NamedEvent>): Map<string, NamedEvent[]> {
  const found = new Map<string, NamedEvent[]>();
  for (const named of events) {
    if (named.event.kind === 'access') {
      const list = found.get(named.event.function) ?? [];
      list.push(named);
      found.set(named.event.function, list);
    }
  }
  return found;
}

function parting(name: string, a: Accesses, b: Accesses): string[] {
  let at = 0;
  while (at < a.length && at < b.length && signature(a[at]!) === signature(b[at]!)) {
    at++;
  }
  if (at === a.length && at === b.length) {
    return [];
  }
  const shown = (list: Accesses): string =>
    at < list.length ? line(list[at]!, NO_COLOURS) : '  no access any more';
  return [
    `${name}: the recordings part after ${at} equal accesses`,
    ...a.slice(Math.max(0, at - CONTEXT), at).map((named) => `    ${line(named, NO_COLOURS)}`),
    `  A ${shown(a)}`,
    `  B ${shown(b)}`,
  ];
}

/** The same register, direction and value, decoded. */
function signature({ event, what, text }: NamedEvent): string {
  return event.kind === 'access' ? `${event.isWrite ? 'W' : 'R'} ${what} ${text}` : '';
}
