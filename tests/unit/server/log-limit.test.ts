import { describe, expect, it } from 'vitest';
import { limitedLog } from '../../../backend/server/log-limit.ts';
import { logInto } from '../../../protocol/log.ts';

function limited(linesPerSecond: number) {
  const lines: string[] = [];
  let now = 0;
  const log = logInto(
    limitedLog(
      (level, message) => lines.push(`${level}: ${message}`),
      linesPerSecond,
      () => now,
    ),
  );
  return {
    lines,
    log,
    pass: (milliseconds: number) => {
      now += milliseconds;
    },
  };
}

describe('the log of what a guest can cause', () => {
  it('has every line of a quiet guest', () => {
    const { lines, log } = limited(2);
    log.warn('one');
    log.warn('two');
    expect(lines).toEqual(['warn: one', 'warn: two']);
  });

  it('leaves lines of a noisy one out, and says how many', () => {
    const { lines, log, pass } = limited(2);
    for (let i = 0; i < 100; i++) {
      log.warn('again');
    }
    expect(lines).toHaveLength(2);
    pass(1000);
    log.warn('later');
    expect(lines.slice(2)).toEqual(['warn: 98 lines like these were left out', 'warn: later']);
  });

  it('counts each level by itself, so that warnings never push errors out', () => {
    const { lines, log } = limited(1);
    log.warn('one');
    log.warn('two');
    log.error('bad');
    expect(lines).toEqual(['warn: one', 'error: bad']);
  });
});
