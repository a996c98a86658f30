// The options of a physical function of this host.
import { InvalidArgumentError } from 'commander';
import { parseBytes } from '../../../protocol/launch/option-values.ts';
import { PAGE_BYTES } from '../../../protocol/page.ts';
import { formatBdf, parseBdf } from '../../pci/bdf.ts';
import { PROFILE_OPTION } from '../device-profile.ts';
import type { KindOption } from '../kind.ts';

/** Also of `probe`. */
export const PRIVILEGED_OPTION = {
  flags: '--privileged <folder>',
  description:
    'have root’s opener and writer do what this user may not: the folder of their sockets',
};

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
    flags: '--max-guest-memory <bytes>',
    description: 'most guest memory that may be pinned, such as 8G (default: what the host has)',
    parse: guestMemory,
  },
  PRIVILEGED_OPTION,
  PROFILE_OPTION,
];

function guestMemory(text: string): number {
  const bytes = parseBytes(text);
  if (bytes === undefined || bytes < PAGE_BYTES) {
    throw new InvalidArgumentError('It must be a size, 4K or more, like 512M or 8G.');
  }
  return bytes;
}

/** A BDF; the domain may be left out. @throws InvalidArgumentError */
export function pfAddress(text: string): string {
  try {
    return formatBdf(parseBdf(text));
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
  }
}
