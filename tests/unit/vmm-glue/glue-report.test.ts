import { expect, it } from 'vitest';
import { type GlueEvents, MAX_GLUE_EVENTS } from '../../../protocol/hotplug/messages.ts';
import { GlueReport } from '../../../vmm-glue/qemu/glue-report.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';

function report() {
  const clock = new ManualClock();
  const told: GlueEvents[] = [];
  const glueReport = new GlueReport(clock, () => [
    { reportGlueEvents: (events) => told.push(events) },
    {},
  ]);
  return { clock, told, report: glueReport };
}

it('gathers what was done, and tells it once: stop when it was answered, the rest when it was asked for', () => {
  const { clock, told, report: glue } = report();
  glue.command('stop', 10n, 15n);
  glue.command('o /h 0xcfc 0x2', 20n, 22n);
  glue.command('cont', 30n, 33n);
  expect(told).toEqual([]);
  clock.elapse(50);
  expect(told).toEqual([
    {
      events: [
        { what: 'stop', text: 'stop', at: 15n, took: 5n },
        { what: 'command', text: 'o /h 0xcfc 0x2', at: 20n, took: 2n },
        { what: 'cont', text: 'cont', at: 30n, took: 3n },
      ],
      lost: 0,
    },
  ]);
  clock.elapse(1000);
  expect(told).toHaveLength(1);
});

it('tells the newest of what one message cannot hold, and counts those before', () => {
  const { clock, told, report: glue } = report();
  for (let i = 0; i < MAX_GLUE_EVENTS + 5; i++) {
    glue.command(i < 5 ? 'stop' : 'query-status', 0n, 1n);
  }
  clock.elapse(50);
  expect(told.map(({ events, lost }) => [events.length, lost])).toEqual([[MAX_GLUE_EVENTS, 5]]);
  expect(told[0]!.events.some(({ what }) => what === 'stop')).toBe(false);
});
