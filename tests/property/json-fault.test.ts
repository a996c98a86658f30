import fc from 'fast-check';
import { expect, it } from 'vitest';
import { jsonFault } from '../../backend/devices/json-fault.ts';

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

const json = fc.tuple(fc.jsonValue(), fc.constantFrom(0, 2)).map(([value, indent]) => {
  return JSON.stringify(value, null, indent);
});

it('finds no fault in JSON', () => {
  fc.assert(
    fc.property(json, (text) => {
      expect(jsonFault(text)).toBeUndefined();
    }),
  );
});

it('finds one where JSON.parse does, however a text was changed, and what is before it can still become JSON', () => {
  const changed = fc
    .tuple(json, fc.nat(), fc.nat(3), fc.constantFrom('', ',', '"', '}', ']', '\n', '1', 'x', '\\'))
    .map(([text, at, length, insertion]) => {
      const from = at % (text.length + 1);
      return text.slice(0, from) + insertion + text.slice(from + length);
    });
  fc.assert(
    fc.property(changed, (text) => {
      const fault = jsonFault(text);
      expect(fault === undefined).toBe(isJson(text));
      expect(fault ?? 0).toBeLessThanOrEqual(text.length);
    }),
    { numRuns: 2000 },
  );
});

it.each([
  ['', 0],
  ['{"a": 1,}', 8],
  ['{"a" 1}', 5],
  ['[1 2]', 3],
  ['[1, 2', 5],
  ['{"a": [}', 7],
  ['{} {}', 3],
  ['{"a": 01}', 7],
  ['{"a": tru}', 6],
  [`${'['.repeat(100_000)}`, 100_000],
])('%j goes wrong at character %i', (text, at) => {
  expect(jsonFault(text)).toBe(at);
});
