// Whether VFs are mapped or trapped: what is asked for, what QEMU can, and what is said where it cannot.
import { describe, expect, it } from 'vitest';
import { chooseVfMemory } from '../../../vmm-glue/qemu/vf-memory.ts';

const PLAIN = { machine: 'q35', hasExpanderBus: false } as const;
const ABLE = {
  asked: undefined,
  index: 0,
  topology: 'root-port',
  totalVfs: 7,
  knowsExpanderBus: true,
  machine: PLAIN,
} as const;
const VIRT = { machine: 'virt', hasExpanderBus: false } as const;

it('VFs are mapped, whether that is asked for or nothing is', () => {
  for (const asked of [undefined, 'mapped'] as const) {
    expect(chooseVfMemory({ ...ABLE, asked })).toEqual({ vfMemory: 'mapped' });
  }
});

it.each([
  ['a q35 with one device number left', { topology: 'pcie.0', totalVfs: 231 }],
  ['a virt with one left for each 8 VFs', { topology: 'pcie.0', totalVfs: 199, machine: VIRT }],
  ['a virt that knows no expander bus', { machine: VIRT, knowsExpanderBus: false }],
] as const)('VFs are mapped in %s', (_, changes) => {
  expect(chooseVfMemory({ ...ABLE, ...changes })).toEqual({ vfMemory: 'mapped' });
});

it('VFs that are to be trapped are, and nothing is said', () => {
  const asked = 'trapped';
  expect(chooseVfMemory({ ...ABLE, asked })).toEqual({ vfMemory: 'trapped' });
  expect(chooseVfMemory({ ...ABLE, asked, index: 3 })).toEqual({ vfMemory: 'trapped' });
});

describe.each([undefined, 'mapped'] as const)('where %s is asked for', (asked) => {
  it.each([
    ['built without the device pxb-pcie', { knowsExpanderBus: false }],
    ['bus numbers for the carriers of 3 backends only', { index: 3 }],
    ['no device number of pcie.0', { topology: 'pcie.0', totalVfs: 239 }],
    ['no device number of pcie.0', { topology: 'pcie.0', totalVfs: 231, machine: VIRT }],
    ['no device number of pcie.0', { totalVfs: 255, mappedVfs: 255, machine: VIRT }],
  ] as const)(
    'VFs are trapped by a QEMU that cannot map them, and it is said why: %s',
    (why, changes) => {
      const obstacle = expect.stringContaining(why);
      const choice = chooseVfMemory({ ...ABLE, asked, ...changes });
      expect(choice).toEqual({ vfMemory: 'trapped', obstacle });
    },
  );
});

it('beside an expander bus of the user’s VFs are mapped only where that is asked for', () => {
  const machine = { ...PLAIN, hasExpanderBus: true };
  const obstacle = expect.stringContaining('the same bus numbers (--vf-memory=mapped');
  expect(chooseVfMemory({ ...ABLE, machine })).toEqual({ vfMemory: 'trapped', obstacle });
  expect(chooseVfMemory({ ...ABLE, machine, asked: 'mapped' })).toEqual({ vfMemory: 'mapped' });
});
