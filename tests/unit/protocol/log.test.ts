import { describe, expect, it } from 'vitest';
import { fromLevel, type LogFields, logInto } from '../../../protocol/log.ts';

function recording() {
  const lines: [string, string, LogFields][] = [];
  return {
    lines,
    sink: (level: string, message: string, fields: LogFields) => {
      lines.push([level, message, fields]);
    },
  };
}

describe('a log', () => {
  it('hands level, text and fields to its sink', () => {
    const { lines, sink } = recording();
    const log = logInto(sink);
    log.trace('a');
    log.error('b', { errno: 'EIO' });
    expect(lines).toEqual([
      ['trace', 'a', {}],
      ['error', 'b', { errno: 'EIO' }],
    ]);
  });

  it('has children whose lines carry their fields, and those of their parents', () => {
    const { lines, sink } = recording();
    const child = logInto(sink).child({ backend: 'pf.sock' }).child({ vf: 3 });
    child.warn('text', { generation: 2 });
    child.info('text');
    expect(lines).toEqual([
      ['warn', 'text', { backend: 'pf.sock', vf: 3, generation: 2 }],
      ['info', 'text', { backend: 'pf.sock', vf: 3 }],
    ]);
  });
});

describe('the least level', () => {
  it.each([
    ['trace', 5],
    ['debug', 4],
    ['info', 3],
    ['warn', 2],
    ['error', 1],
    ['silent', 0],
  ] as const)('%s lets lines of %i levels through', (least, count) => {
    const { lines, sink } = recording();
    const log = logInto(fromLevel(least, sink));
    log.trace('');
    log.debug('');
    log.info('');
    log.warn('');
    log.error('');
    expect(lines).toHaveLength(count);
  });
});
