// SECURITY.md names tests for what it says: they are there.
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

const NAMED = [...read('SECURITY.md').matchAll(/`(tests\/[^`]+\.test\.ts)`[:,]\s([^|.]+)/g)].map(
  ([, file, name]) => [file!, name!.replace(/\s+/g, ' ').trim()] as const,
);

it('names tests', () => {
  expect(NAMED.length).toBeGreaterThan(20);
});

it.each(NAMED)('%s has: %s', (file, name) => {
  expect(read(file).replace(/\s+/g, ' ')).toContain(name);
});
