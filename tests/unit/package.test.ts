// What the package gives to a program that depends on it, by the names that such a program uses. Needs a build.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { expect, it } from 'vitest';

const resolve = createRequire(import.meta.url).resolve;

it.each([
  'client',
  'client/hotplug',
  'client/interrupts',
  'client/memory',
  'client/loopback-transport',
  'reference-vmm',
  'reference-vmm/pci-function',
  'protocol/vfio-user/commands',
  'protocol/hotplug/codec',
])('vfio-user-sriov/%s has code and types', (name) => {
  const code = resolve(`vfio-user-sriov/${name}`);
  expect(existsSync(code)).toBe(true);
  expect(existsSync(code.replace(/\.js$/, '.d.ts'))).toBe(true);
});

it.each([
  'backend/server/session',
  'qemu/glue',
  'client/connection',
  'reference-vmm/bars',
  'protocol/unix/libc',
])('keeps %s to itself', (name) => {
  expect(() => resolve(`vfio-user-sriov/${name}`)).toThrow('not defined by "exports"');
});
