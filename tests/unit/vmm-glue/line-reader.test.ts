import { describe, expect, it } from 'vitest';
import { LineReader } from '../../../vmm-glue/qemu/line-reader.ts';

describe('lines', () => {
  it('come whole, whatever pieces they come in', () => {
    const reader = new LineReader(10);
    expect(['ab', 'c\nd', '', 'e\n\nf\ng'].map((piece) => reader.take(piece))).toEqual([
      [],
      ['abc'],
      [],
      ['de', '', 'f'],
    ]);
    expect(reader.take('\n')).toEqual(['g']);
  });

  it('may be as long as that, and not longer', () => {
    expect(new LineReader(3).take('abc\nabc\nabc')).toEqual(['abc', 'abc']);
    expect(new LineReader(3).take('abcd\n')).toBeUndefined();
    expect(new LineReader(3).take('a\nabcd\n')).toBeUndefined();
    expect(new LineReader(3).take('a\nabcd')).toBeUndefined();
    const reader = new LineReader(3);
    reader.take('ab');
    expect(reader.take('cd')).toBeUndefined();
  });
});
