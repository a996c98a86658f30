// What the package gives to a program that depends on it, by the names that such a program uses. Needs a build.

import { existsSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { expect, it } from 'vitest';

const resolve = createRequire(import.meta.url).resolve;

const { exports } = JSON.parse(readFileSync('package.json', 'utf8')) as {
  readonly exports: Readonly<Record<string, string>>;
};

it('exports files by name, and no folders or patterns', () => {
  for (const [name, file] of Object.entries(exports)) {
    expect(`${name} ${file}`).not.toContain('*');
    expect(statSync(file).isFile(), file).toBe(true);
  }
});

const modules = Object.keys(exports).filter((name) => exports[name]!.endsWith('.js'));

it.each(modules.map((name) => name.slice('./'.length)))(
  'vfio-user-sriov/%s has code and types',
  (name) => {
    const code = resolve(`vfio-user-sriov/${name}`);
    expect(existsSync(code)).toBe(true);
    expect(existsSync(code.replace(/\.js$/, '.d.ts'))).toBe(true);
  },
);

it.each([
  'backend/server/session',
  'qemu/glue',
  'client/connection',
  'reference-vmm/bars',
  'protocol/unix/libc',
])('keeps %s to itself', (name) => {
  expect(() => resolve(`vfio-user-sriov/${name}`)).toThrow('not defined by "exports"');
});
