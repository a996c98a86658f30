// The options of `--device=loopback`.
import { InvalidArgumentError } from 'commander';
import { parseBytes } from '../../../protocol/launch/option-values.ts';
import { PROFILE_OPTION } from '../device-profile.ts';
import type { KindOption } from '../kind.ts';
import { wholeNumber } from '../option-values.ts';
import { Layout } from './registers.ts';

/** VF BAR size unless told otherwise: registers, MSI-X page and as much memory. */
export const SMALLEST_VF_BAR = 2 * Layout.memory;
const LONGEST_DELAY_MILLISECONDS = 60_000;

export const LOOPBACK_OPTIONS: readonly KindOption[] = [
  {
    flags: '--vf-bar-size <bytes>',
    description: 'size of BAR 0 of a VF, such as 64M (default: 16K)',
    parse: barSize,
  },
  {
    flags: '--enable-delay <ms>',
    description: 'how long making VFs takes (default: 0)',
    parse: wholeNumber(0, LONGEST_DELAY_MILLISECONDS),
  },
  PROFILE_OPTION,
];

function barSize(text: string): number {
  const size = parseBytes(text);
  if (size === undefined || size < SMALLEST_VF_BAR || !Number.isInteger(Math.log2(size))) {
    throw new InvalidArgumentError('It must be a power of two, 16K or more, like 16K or 64M.');
  }
  return size;
}
