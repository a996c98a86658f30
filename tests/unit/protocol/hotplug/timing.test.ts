import { expect, it } from 'vitest';
import { TIMING_RULES } from '../../../../protocol/hotplug/timing.ts';

it.each(TIMING_RULES)('$reason', ({ holds }) => {
  expect(holds).toBe(true);
});
