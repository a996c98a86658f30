import { expect, it } from 'vitest';
import { differences } from '../../../vmm-glue/trace/reading/difference.ts';
import { Naming } from '../../../vmm-glue/trace/reading/naming.ts';
import { GuestScript } from './guest-script.ts';
import { DESCRIPTION } from './ring.ts';

function named(guest: GuestScript) {
  const naming = new Naming(DESCRIPTION);
  return guest.events.flatMap((event) => naming.name(event));
}

it('the first access that differs, of each function, in order of their numbers', () => {
  const [a, b] = [new GuestScript(), new GuestScript().after(20)];
  for (const index of [10, 2]) {
    a.useVf(index).write('Command', 4, `vf${index}`);
    b.useVf(index).write('Command', 6, `vf${index}`);
  }
  const lines = differences(named(a), named(b));
  expect(lines.filter((line) => /^\w/.test(line))).toEqual([
    'vf2: the recordings part after 1 equal accesses',
    'vf10: the recordings part after 1 equal accesses',
  ]);
  expect(lines.find((line) => line.startsWith('  B '))).toContain('vf2  W Command');
});
