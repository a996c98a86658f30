import { expect, it } from 'vitest';
import type { TraceEvent } from '../../../protocol/trace/events.ts';
import { Summary } from '../../../vmm-glue/trace/reading/summary.ts';
import { GuestScript } from './guest-script.ts';

function linesOf(events: readonly TraceEvent[]): string[] {
  const summary = new Summary();
  for (const event of events) {
    summary.add(event);
  }
  return summary.lines();
}

it('counts by function and kind, with rates and the longest wait', () => {
  const guest = new GuestScript('none')
    .read('Command', 0)
    .write('Command', 6)
    .note('host', { name: 'createVfs', took: 12.5 })
    .note('glue', { what: 'stop', text: 'stop', took: 3 })
    .after(999.8)
    .useVf(1);
  expect(linesOf(guest.events)).toEqual([
    '1.000000 s, 5 events',
    'what                         count    a second  failed  longest',
    '      glue                       1         1.0       0  3.000 ms at 0.000200',
    '      host createVfs             1         1.0       0  12.500 ms at 0.000200',
    'pf    config reads               1         1.0       0',
    'pf    config writes              1         1.0       0',
    'vf1   config reads               1         1.0       0',
  ]);
});

it('an answer was late, or it was no', () => {
  const guest = new GuestScript('none').answered(20);
  const refused = { ...guest.events[0]!, isFailure: true };
  const [, , ...rows] = linesOf([...guest.events, refused]);
  expect(rows.map((row) => row.slice(0, 20).trim())).toEqual([
    'pf    late access',
    'pf    refused access',
  ]);
});

it('a single moment has no rate', () => {
  const [, , row] = linesOf(new GuestScript('none').note('trace', { what: 'started' }).events);
  expect(row).toBe('      trace                      1           -       0');
});

it('nothing in a recording reaches a terminal as it is', () => {
  const [, , row] = linesOf(new GuestScript('none').note('host', { name: '\x1b[2J' }).events);
  expect(row).not.toMatch(/\p{Cc}/u);
});
