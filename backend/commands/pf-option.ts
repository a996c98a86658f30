// The option --pf=BDF, read the same way by every command that has it.
import { InvalidArgumentError, Option } from 'commander';
import { formatBdf, parseBdf } from '../pci/bdf.ts';

/** `--pf=0000:01:00.0`; the domain may be left out. */
export function pfOption(description = 'the physical function, such as 0000:01:00.0'): Option {
  return new Option('--pf <address>', description).argParser((text: string) => {
    try {
      return formatBdf(parseBdf(text));
    } catch (error) {
      throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
    }
  });
}
