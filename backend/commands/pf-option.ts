// The option --pf=BDF, read the same way by every command that has it.
import { Option } from 'commander';
import { pfAddress } from '../devices/vfio/options.ts';

/** `--pf=0000:01:00.0`; the domain may be left out. */
export function pfOption(description = 'the physical function, such as 0000:01:00.0'): Option {
  return new Option('--pf <address>', description).argParser(pfAddress);
}
