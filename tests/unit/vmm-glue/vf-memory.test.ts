// Whether VFs are mapped or trapped: what is asked for, what QEMU can, and what is said where it cannot.
import { expect, it } from 'vitest';
import { chooseVfMemory } from '../../../vmm-glue/qemu/vf-memory.ts';

const ABLE = { asked: 'mapped', index: 0, knowsExpanderBus: true } as const;

it('VFs are mapped where that is asked for', () => {
  expect(chooseVfMemory(ABLE)).toEqual({ vfMemory: 'mapped' });
});

it.each([
  ['built without the device pxb-pcie', { knowsExpanderBus: false }],
  ['bus numbers for the carriers of 3 backends only', { index: 3 }],
])('they are trapped by a QEMU that cannot map them, and it is said why: %s', (why, changes) => {
  const obstacle = expect.stringContaining(why);
  expect(chooseVfMemory({ ...ABLE, ...changes })).toEqual({ vfMemory: 'trapped', obstacle });
});

it('VFs that are to be trapped are, and nothing is said', () => {
  const asked = 'trapped';
  expect(chooseVfMemory({ ...ABLE, asked, index: 3 })).toEqual({ vfMemory: 'trapped' });
});
