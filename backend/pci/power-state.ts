// Which power states a function takes. PCI Power Management 1.2, "PowerState": a write of an optional state that the
// function does not support completes, and changes nothing.

import { fieldOf } from './registers.ts';
import { POWER_MANAGEMENT } from './spec/power-management.ts';

const D1 = 1;
const D2 = 2;

/** The Power State after a write; `capabilities` is the Power Management Capabilities register. */
export function powerStateAfter(written: number, before: number, capabilities: number): number {
  const register = POWER_MANAGEMENT.capabilities;
  const isMissing =
    (written === D1 && fieldOf(register, 'd1Support', capabilities) === 0) ||
    (written === D2 && fieldOf(register, 'd2Support', capabilities) === 0);
  return isMissing ? before : written;
}
