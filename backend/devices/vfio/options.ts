// The options of a physical function of this host.
import { InvalidArgumentError } from 'commander';
import { formatBdf, parseBdf } from '../../pci/bdf.ts';
import type { KindOption } from '../kind.ts';

export const VFIO_OPTIONS: readonly KindOption[] = [
  {
    flags: '--pf <address>',
    description: 'serve a physical function of this host, such as 0000:01:00.0',
    parse: pfAddress,
  },
  {
    flags: '--container <mode>',
    description: 'one IOMMU container for PF and VFs (shared, the default), or one each',
    choices: ['shared', 'per-function'],
  },
  {
    flags: '--profile <file>',
    description: 'shape of the VFs, written by `probe`, instead of enabling one',
  },
];

/** A BDF; the domain may be left out. @throws InvalidArgumentError */
export function pfAddress(text: string): string {
  try {
    return formatBdf(parseBdf(text));
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
  }
}
