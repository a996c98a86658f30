// `--trap`: BARs that no VMM may map, so that every access to them comes as a message and can be seen.

import { InvalidArgumentError } from 'commander';
import type { DeviceDescription, FunctionShape } from '../device/physical-device.ts';

const NAMES = ['pf', 'vfs', 'bar0', 'bar1', 'bar2', 'bar3', 'bar4', 'bar5'] as const;
export type TrapName = (typeof NAMES)[number];

/** Reads the option's list. */
export function trapNames(text: string): readonly TrapName[] {
  const names = text.split(',');
  const unknown = names.find((name) => !NAMES.includes(name as TrapName));
  if (unknown !== undefined) {
    throw new InvalidArgumentError(`It must be a list of ${NAMES.join(', ')}.`);
  }
  return names as TrapName[];
}

/** The description with the mappings taken out: of these functions, or of these BARs of both; both given, of these BARs of these functions. */
export function trapped(
  description: DeviceDescription,
  names: readonly TrapName[],
): DeviceDescription {
  const functions = names.filter((name) => name === 'pf' || name === 'vfs');
  const bars = names.filter((name) => name.startsWith('bar')).map((name) => Number(name.at(-1)));
  const applies = (name: 'pf' | 'vfs'): boolean =>
    functions.length === 0 || functions.includes(name);
  const without = (shape: FunctionShape): FunctionShape => ({
    ...shape,
    regions: shape.regions.map((region) =>
      bars.length === 0 || bars.includes(region.index) ? { ...region, mappable: [] } : region,
    ),
  });
  return {
    ...description,
    pf: applies('pf') ? without(description.pf) : description.pf,
    vf: applies('vfs') ? without(description.vf) : description.vf,
  };
}
