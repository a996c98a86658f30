import fc from 'fast-check';
import { expect, it } from 'vitest';
import { placeInJson } from '../../backend/devices/json-place.ts';

/** Every value of a tree by its path, the tree itself by none. */
function valuesIn(value: unknown, path = ''): [string, unknown][] {
  const inside = Array.isArray(value)
    ? value.map((each, index): [string, unknown] => [`${path}[${index}]`, each])
    : Object.entries(typeof value === 'object' && value !== null ? value : {}).map(
        ([key, each]): [string, unknown] => [path === '' ? key : `${path}.${key}`, each],
      );
  return [[path, value], ...inside.flatMap(([name, each]) => valuesIn(each, name))];
}

const key = fc.stringMatching(/^[a-z]{1,3}$/);
const { tree } = fc.letrec((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small' },
    fc.jsonValue({ maxDepth: 0 }),
    fc.array(tie('tree'), { maxLength: 4 }),
    fc.dictionary(key, tie('tree'), { maxKeys: 4 }),
  ),
}));

it('finds the place at which each value of a text stands', () => {
  fc.assert(
    fc.property(tree, fc.constantFrom(0, 2), (value, indent) => {
      const text = JSON.stringify(value, null, indent);
      for (const [path, each] of valuesIn(value)) {
        const found = valueAt(text, placeInJson(text, path));
        expect([path, JSON.stringify(found)]).toEqual([path, JSON.stringify(each)]);
      }
    }),
  );
});

/** The longest piece from there on that is JSON: the value, since a comma or a bracket follows it. */
function valueAt(text: string, from: number): unknown {
  for (let end = text.length; end > from; end--) {
    try {
      return JSON.parse(text.slice(from, end));
    } catch {}
  }
  return undefined;
}

it.each([
  ['{"a": {"b": 1}}', 'a.b', 12],
  ['{"a": {"b": 1}}', 'a.c', 6],
  ['{"a": {"b": 1}}', 'c', 0],
  ['{"ab": 1, "a": 2}', 'a', 15],
  ['{"a": 1, "a": 2}', 'a', 14],
  ['{"a]": "x,{", "b": [[1, 2], [3]]}', 'b[1][0]', 29],
  [`${'['.repeat(100_000)}${']'.repeat(100_000)}`, 'a', 0],
])('%j has %s at character %i', (text, path, at) => {
  expect(placeInJson(text, path)).toBe(at);
});
