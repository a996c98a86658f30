import { expect, it } from 'vitest';
import { formatBdf, parseBdf } from '../../../backend/pci/bdf.ts';

it('an address reads and writes as sysfs names it', () => {
  expect(parseBdf('0000:3b:1f.7')).toEqual({ domain: 0, bus: 0x3b, device: 0x1f, fn: 7 });
  expect(formatBdf(parseBdf('0000:3B:1F.7'))).toBe('0000:3b:1f.7');
  expect(formatBdf(parseBdf('10000:e1:00.0'))).toBe('10000:e1:00.0');
});

it('an address without a domain is in domain 0', () => {
  expect(formatBdf(parseBdf('01:00.0'))).toBe('0000:01:00.0');
});

it.each(['', '01:00', '0000:01:00.8', '0000:01:20.0', '01:00.0 ', '../01:00.0', '0000:1:00.0'])(
  'the text "%s" is refused with an example of what to write',
  (text) => {
    expect(() => parseBdf(text)).toThrow(/such as 0000:01:00\.0$/);
  },
);
