// What all functions of one kind have in common, the PF or each VF of a device: made once, so that a VF is opened from it by
// little more than copying its registers.

import { type BarPlan, planBars } from './bar-space.ts';
import { type ConfigPlan, planConfig } from './config.ts';
import type { DeviceDeclaration, FunctionDeclaration } from './declaration.ts';

export interface FunctionPlan<Shared> {
  readonly declared: FunctionDeclaration<Shared>;
  readonly config: ConfigPlan;
  readonly bars: readonly BarPlan[];
}

export function planFunction<Shared>(
  device: DeviceDeclaration<Shared>,
  isVf: boolean,
): FunctionPlan<Shared> {
  const declared: FunctionDeclaration<Shared> = isVf ? device.vf : device.pf;
  return {
    declared,
    config: planConfig(device, declared, isVf, true),
    bars: planBars(declared.bars, declared.msixVectors ?? 0),
  };
}
