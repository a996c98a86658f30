import { expect, it } from 'vitest';
import { ModelGuard, stackOf, wordsOf } from '../../../../backend/devices/kit/model-guard.ts';
import { logInto } from '../../../../protocol/log.ts';
import { limitedLog } from '../../../../protocol/log-limit.ts';
import { ManualClock } from '../../../fakes/manual-clock.ts';

function getter(name: string, of: object): object {
  return Object.defineProperty(of, name, {
    get() {
      throw new Error('in the getter');
    },
  });
}

function asThrown(message: string): Error {
  return new Error(message);
}

it.each<[string, string]>([
  ['short', 'no such register'],
  ['long', 'x'.repeat(10_000_000)],
  ['long, and not of ASCII', 'ü\n'.repeat(100_000)],
])(
  'what a model throws is logged with its access and its line, though its words are %s',
  (_, words) => {
    const lines: string[] = [];
    const log = limitedLog(
      logInto((_level, message) => lines.push(message)),
      new ManualClock(),
    );
    new ModelGuard('card, pf', log).failed('read of 4 bytes', asThrown(words));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain(`card, pf: read of 4 bytes failed: Error: ${words.slice(0, 16)}`);
    expect(lines[0]).toMatch(/\n +at asThrown \(.*model-guard\.test\.ts:\d+/);
  },
);

it.each<[string, unknown]>([
  ['a stack that throws', getter('stack', new Error('x'))],
  ['words that throw', getter('message', new Error('x'))],
  ['no text', Object.create(null)],
  [
    'a prototype that throws',
    new Proxy(
      {},
      {
        getPrototypeOf: () => {
          throw new Error('x');
        },
      },
    ),
  ],
  ['a symbol', Symbol('x')],
  ['nothing', undefined],
])('what is thrown may have %s', (_, thrown) => {
  expect([typeof stackOf(thrown), typeof wordsOf(thrown)]).toEqual(['string', 'string']);
});
