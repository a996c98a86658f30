import { describe, expect, it } from 'vitest';
import { type LogFields, type LogLevel, logInto } from '../../../protocol/log.ts';
import { limitedLog } from '../../../protocol/log-limit.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';

const HOUR_SECONDS = 60 * 60;
const STEP_SECONDS = 20;
const DEFAULT_LEVELS = ['info', 'warn', 'error'] as const;

function limited() {
  const lines: string[] = [];
  const clock = new ManualClock();
  let bytes = 0;
  const sink = (level: LogLevel, message: string, fields: LogFields) => {
    lines.push(`${level}: ${message}`);
    // As pino writes it.
    bytes += JSON.stringify({ level: 30, time: 1795741567860, ...fields, msg: message }).length + 1;
  };
  return { lines, clock, log: limitedLog(logInto(sink), clock), bytes: () => bytes };
}

/** Says a line until one is left out; gives how many were not. */
function fill(log: ReturnType<typeof limited>['log'], lines: string[]): number {
  let before = -1;
  while (lines.length > before) {
    before = lines.length;
    log.warn('again');
  }
  return before;
}

describe('the log of what others can cause', () => {
  it('has every line of a burst, and of whoever is not noisy', () => {
    const { log, lines, clock } = limited();
    for (let i = 0; i < 100; i++) {
      log.warn('VF 0 was refused', { generation: i });
    }
    expect(lines).toHaveLength(100);
    for (let i = 0; i < 100; i++) {
      clock.elapse(5000);
      log.warn('VF 0 was refused', { generation: i });
    }
    expect(lines).toHaveLength(200);
    expect(lines.filter((line) => line.includes('left out'))).toEqual([]);
  });

  it('tells how many lines of a flood it has left out, soon', () => {
    const { log, lines, clock } = limited();
    const burst = fill(log, lines);
    log.warn('again');
    clock.elapse(9000);
    log.warn('later');
    clock.elapse(1000);
    expect(lines.slice(burst)).toEqual([
      'warn: later',
      'warn: 2 lines like this one were left out: again',
    ]);
  });

  it('tells it where no line follows, too', () => {
    const { log, lines, clock } = limited();
    const burst = fill(log, lines);
    clock.elapse(10_000);
    expect(lines.slice(burst)).toEqual(['warn: 1 lines like this one were left out: again']);
    clock.elapse(100_000);
    expect(lines).toHaveLength(burst + 1);
    expect(clock.pending).toBe(0);
  });

  it('tells it before the next line of the kind', () => {
    const { log, lines, clock } = limited();
    const burst = fill(log, lines);
    clock.elapse(9000);
    log.warn('again');
    expect(lines.slice(burst)).toEqual([
      'warn: 1 lines like this one were left out: again',
      'warn: again',
    ]);
  });

  it('counts each kind by itself, so that a flood of one hides no other; numbers make no kind', () => {
    const { log, lines } = limited();
    for (let i = 0; i < 10_000; i++) {
      log.debug(`vf${i % 7} W Command 0x${i.toString(16)}`);
    }
    const burst = lines.length;
    expect(burst).toBeLessThan(300);
    log.debug('pf W SR-IOV NumVFs 0x0004');
    log.debug('vf3 W Command 0x0006');
    expect(lines.slice(burst)).toEqual(['debug: pf W SR-IOV NumVFs 0x0004']);
  });

  it('keeps in its limits where somebody invents kinds', () => {
    const { log, clock, bytes } = limited();
    const words = (i: number) =>
      String.fromCharCode(97 + (i % 26), 97 + ((i / 26) % 26), 97 + ((i / 676) % 26));
    const hour = () => {
      const before = bytes();
      for (let second = 0; second < HOUR_SECONDS; second += STEP_SECONDS) {
        for (let i = 0; i < 300; i++) {
          log.warn(words(i));
        }
        clock.elapse(STEP_SECONDS * 1000);
      }
      return bytes() - before;
    };
    hour();
    expect(24 * hour()).toBeLessThanOrEqual(10e6);
  });

  it('counts each level by itself, so that warnings never push errors out', () => {
    const { log, lines } = limited();
    fill(log, lines);
    log.error('bad');
    expect(lines.at(-1)).toBe('error: bad');
  });

  it.each([
    ['short lines', 'again', {}],
    ['long lines', 'x'.repeat(3000), { path: '/tmp/pf.sock' }],
    ['quotes, which become two bytes each', '"'.repeat(500), { text: '""""' }],
    ['big numbers', 'again', { address: (2n ** 63n).toString() }],
  ])(
    'takes at most 50 MB of disk a day with a backend and a glue, whatever is said: %s',
    (_what, message, fields) => {
      const { log, clock, bytes } = limited();
      const bytesOfAnHour = () => {
        const before = bytes();
        for (let second = 0; second < HOUR_SECONDS; second += STEP_SECONDS) {
          for (const level of DEFAULT_LEVELS) {
            // More than what a step has room for.
            for (let i = 0; i < 60; i++) {
              log[level](message, fields);
            }
          }
          clock.elapse(STEP_SECONDS * 1000);
        }
        return bytes() - before;
      };
      // The first one has the burst, too. Each of the two processes has a limit of its own.
      const bytesOfADay = 2 * (bytesOfAnHour() + 23 * bytesOfAnHour());
      expect(bytesOfADay).toBeLessThanOrEqual(50e6);
      expect(bytesOfADay).toBeGreaterThan(10e6);
    },
  );
});
