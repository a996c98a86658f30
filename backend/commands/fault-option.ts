// The option of `serve` for whoever wants to see how a driver takes it when something goes wrong.

import type { ServeOption } from './serve-options.ts';

export interface FaultOptions {
  readonly fault?: readonly string[];
}

export const FAULT_OPTIONS: readonly ServeOption[] = [
  {
    flags: '--fault <rule>',
    description:
      'have something go wrong, such as vf-enable:fail or dma:error@every=100; may be repeated (see `fault`)',
    isRepeatable: true,
  },
];
