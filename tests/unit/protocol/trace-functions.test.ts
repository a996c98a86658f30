// Functions have numbers in a record, and their names again when it is read.

import { expect, it } from 'vitest';
import { functionName, functionNumberOf, NO_FUNCTION } from '../../../protocol/trace/format.ts';

it.each(['pf', 'vf0', 'vf254', 'carrier0', 'carrier254'])('%s has a number of its own', (name) => {
  expect(functionName(functionNumberOf(name))).toBe(name);
  expect(functionNumberOf(name)).toBeLessThan(NO_FUNCTION);
});

it('what is no function has no name', () => {
  expect(functionNumberOf('glue')).toBe(NO_FUNCTION);
  expect(functionName(NO_FUNCTION)).toBe('');
});
