import { describe, expect, it } from 'vitest';
import { powerStateAfter } from '../../../backend/pci/power-state.ts';

const D1_SUPPORT = 1 << 9;
const D2_SUPPORT = 1 << 10;

describe('a write of the power state', () => {
  it.each([0, 3])('takes D%i, which every function has', (state) => {
    expect(powerStateAfter(state, 3 - state, 0)).toBe(state);
  });

  it.each([
    [1, D1_SUPPORT],
    [2, D2_SUPPORT],
  ])('takes D%i where the function has it, and changes nothing where not', (state, support) => {
    expect(powerStateAfter(state, 0, support)).toBe(state);
    expect(powerStateAfter(state, 3, 0xffff & ~support)).toBe(3);
  });
});
