import { expect, it } from 'vitest';
import { amdWithFortyBits } from '../../../vmm-glue/qemu/cpu-model.ts';

it.each([
  [undefined, 'qemu64'],
  ['max', 'max'],
  ['max,phys-bits=40', 'max'],
  ['EPYC-Milan', 'EPYC-Milan'],
  ['max,phys-bits=46', undefined],
  ['max,vendor=GenuineIntel', undefined],
  ['EPYC,host-phys-bits=on', undefined],
  ['EPYC,host-phys-bits=true', undefined],
  ['EPYC,host-phys-bits=off', 'EPYC'],
  ['Skylake-Server', undefined],
])('emulated, %s: AMD with 40 address bits is %s', (cpu, model) => {
  expect(amdWithFortyBits({ cpu, isEmulated: true })).toBe(model);
});

it.each([
  ['host', undefined],
  ['max', undefined],
  [undefined, undefined],
  ['EPYC', 'EPYC'],
])('with KVM, %s: %s', (cpu, model) => {
  expect(amdWithFortyBits({ cpu, isEmulated: false })).toBe(model);
});
