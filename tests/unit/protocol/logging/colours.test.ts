import { expect, it } from 'vitest';
import { wantsColours } from '../../../../protocol/logging/colours.ts';

it.each([
  [{}, true, true],
  [{}, false, false],
  [{ TERM: 'dumb' }, true, false],
  [{ NO_COLOR: '1' }, true, false],
  [{ NO_COLOR: '' }, true, true],
  [{ FORCE_COLOR: '1' }, false, true],
  [{ FORCE_COLOR: '' }, false, true],
  [{ FORCE_COLOR: '0' }, true, false],
  [{ FORCE_COLOR: 'false' }, true, false],
  [{ NO_COLOR: '1', FORCE_COLOR: '1' }, true, false],
])('with %j, and a terminal: %s, colours are wanted: %s', (environment, isTerminal, wanted) => {
  expect(wantsColours(environment, isTerminal)).toBe(wanted);
});
