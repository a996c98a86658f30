// How often what happened, and what took longest.

import { printable } from '../../../protocol/printable.ts';
import type { TraceEvent } from '../../../protocol/trace/events.ts';
import { RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { seconds } from './lines.ts';
import { milliseconds } from './naming.ts';

interface Row {
  count: number;
  failures: number;
  longest: number;
  longestAt: number;
}

export class Summary {
  readonly #rows = new Map<string, Row>();
  #first: number | undefined;
  #last = 0;

  add(event: TraceEvent): void {
    this.#first ??= event.time;
    this.#last = Math.max(this.#last, event.time);
    const key = `${event.function.padEnd(5)} ${kindOf(event)}`;
    const row = this.#rows.get(key) ?? { count: 0, failures: 0, longest: 0, longestAt: 0 };
    this.#rows.set(key, row);
    row.count++;
    row.failures += event.isFailure ? 1 : 0;
    const wait = waitOf(event);
    if (wait > row.longest) {
      row.longest = wait;
      row.longestAt = event.time;
    }
  }

  lines(): string[] {
    const span = this.#last - (this.#first ?? 0);
    const head = `${'what'.padEnd(24)}${'count'.padStart(10)}${'a second'.padStart(12)}${'failed'.padStart(8)}  longest`;
    const rows = [...this.#rows].sort(([one], [other]) => (one < other ? -1 : 1));
    return [
      `${seconds(span)} s, ${rows.reduce((sum, [, { count }]) => sum + count, 0)} events`,
      head,
      ...rows.map(([name, row]) => {
        const rate = span === 0 ? '-' : (row.count / (span / 1e9)).toFixed(1);
        const longest =
          row.longest === 0 ? '' : `  ${milliseconds(row.longest)} at ${seconds(row.longestAt)}`;
        return `${printable(name).padEnd(24)}${String(row.count).padStart(10)}${rate.padStart(12)}${String(row.failures).padStart(8)}${longest}`;
      }),
    ];
  }
}

function kindOf(event: TraceEvent): string {
  if (event.kind === 'access') {
    const space = event.region === RegionIndex.config ? 'config' : `region ${event.region}`;
    return `${space} ${event.isWrite ? 'writes' : 'reads'}`;
  }
  if (event.kind === 'answer') {
    return `${event.isFailure ? 'refused' : 'late'} ${event.of}`;
  }
  return event.kind === 'host' ? `host ${String(event.detail.name)}` : event.kind;
}

/** Nanoseconds. */
function waitOf(event: TraceEvent): number {
  switch (event.kind) {
    case 'access':
      return event.took;
    case 'answer':
      return event.waited;
    case 'host':
    case 'message':
    case 'glue':
      return typeof event.detail.took === 'number' ? event.detail.took * 1e6 : 0;
    default:
      return 0;
  }
}
