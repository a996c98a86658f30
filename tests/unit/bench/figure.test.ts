import { describe, expect, it } from 'vitest';
import { jsonLine, median, rounded, table } from '../../bench/figure.ts';

describe('median', () => {
  it('is the middle one, whatever the order', () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([4])).toBe(4);
  });

  it('is the mean of the two middle ones of an even number', () => {
    expect(median([10, 1, 3, 2])).toBe(2.5);
  });

  it('compares numbers, not text', () => {
    expect(median([100, 9, 20])).toBe(20);
  });

  it('needs a value', () => {
    expect(() => median([])).toThrow('median of no values');
  });
});

describe('rounded', () => {
  it('keeps three figures or so', () => {
    expect([0.12345, 12.345, 123.45].map(rounded)).toEqual([0.123, 12.3, 123]);
  });
});

describe('jsonLine', () => {
  it('says whether a limit is kept, up to and including the limit', () => {
    const figure = { figure: 'ratio', value: 1, unit: 'x', limit: 1, details: { rounds: 3 } };
    expect(JSON.parse(jsonLine(figure))).toEqual({ ...figure, within: true });
    expect(JSON.parse(jsonLine({ ...figure, value: 1.01 }))).toMatchObject({ within: false });
  });

  it('says nothing about a limit where there is none', () => {
    const figure = { figure: 'time', value: 1, unit: 'us', details: {} };
    expect(JSON.parse(jsonLine(figure))).toEqual(figure);
  });
});

describe('table', () => {
  it('aligns its columns', () => {
    expect(
      table([
        { figure: 'rtt-ratio', value: 0.6, unit: 'x', limit: 1, details: {} },
        { figure: 'memory', value: 95.26, unit: 'MiB', limit: 90, details: {} },
        { figure: 'time', value: 8, unit: 'us', details: {} },
      ]),
    ).toBe(
      [
        'rtt-ratio  0.6 x     limit 1 x     within',
        'memory     95.3 MiB  limit 90 MiB  OVER',
        'time       8 us',
      ].join('\n'),
    );
  });
});
