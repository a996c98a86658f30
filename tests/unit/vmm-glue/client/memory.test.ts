// Guest memory of the client library: how it is asked for.
import { expect, it } from 'vitest';
import { GuestMemory } from '../../../../vmm-glue/client/memory.ts';

it.each([1000, 0, -4096, 4096.5, Number.NaN, 2 ** 60])('is not had in %j bytes', (length) => {
  expect(() => new GuestMemory(length)).toThrow(/give a multiple of 4096|SyscallError/);
});

it('is had in whole pages, and reads as zeros', () => {
  const memory = new GuestMemory(8192);
  expect(memory.bytes).toHaveLength(8192);
  expect(memory.bytes.every((byte) => byte === 0)).toBe(true);
  memory.close();
});
