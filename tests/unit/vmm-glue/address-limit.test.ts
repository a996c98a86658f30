// Up to which address a guest's memory can be mapped, by what the kernel says of the processor.
import { expect, it } from 'vitest';
import { addressLimit, addressLimitOf } from '../../../vmm-glue/qemu/address-limit.ts';

it('is what the processor has, or what KVM gives where the kernel does not say', () => {
  const cpuinfo = 'flags\t\t: fpu vme\naddress sizes\t: 46 bits physical, 48 bits virtual\n';
  expect(addressLimitOf(cpuinfo)).toBe(1n << 46n);
  expect(addressLimitOf('processor\t: 0\n')).toBe(1n << 40n);
});

it('is asked of this machine', () => {
  expect(addressLimit()).toBeGreaterThanOrEqual(1n << 36n);
});
