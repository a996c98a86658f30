// `profile`: makes a profile of a card from what lspci printed of it, for `serve --profile`.
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { situationOf } from '../../protocol/explained-error.ts';
import { UserError } from '../../protocol/user-error.ts';
import { encodeProfile } from '../devices/device-profile.ts';
import { describeLspci } from '../devices/lspci-profile.ts';
import { LspciTextError, parseLspci } from '../devices/lspci-text.ts';
import { writeOutput } from './output-file.ts';

interface ProfileOptions {
  readonly output: string;
  readonly name?: string;
}

export function profileCommand(): Command {
  return new Command('profile')
    .description(
      'Makes a profile of a card from the text that `lspci -vvv -xxxx` prints, as root, of a PF and of one of its VFs: for ' +
        '`serve --loopback --profile`, which then looks like that card.',
    )
    .argument('<text>', 'the text in a file; - for standard input')
    .option('--name <text>', 'what the card is called (default: its address)')
    .requiredOption('--output <file>', 'where to write the profile')
    .addHelpText(
      'after',
      '\nExample:\n  (lspci -vvv -xxxx -s 01:00.0; lspci -vvv -xxxx -s 01:10.0) >card.txt\n' +
        '  vfio-user-sriov profile card.txt --output=card.json\n',
    )
    .action((path: string, { output, name }: ProfileOptions) => {
      writeOutput(output, profileFrom(path, name));
      process.stdout.write(`wrote ${output}\n`);
    });
}

function profileFrom(path: string, name: string | undefined): string {
  try {
    return encodeProfile(describeLspci(parseLspci(read(path)), name));
  } catch (error) {
    if (error instanceof LspciTextError) {
      const { line, reason } = error;
      throw new UserError(`${path}, line ${line}: ${reason}`, 'give what lspci -vvv -xxxx printed');
    }
    throw error;
  }
}

function read(path: string): string {
  try {
    return readFileSync(path === '-' ? 0 : path, 'utf8');
  } catch (error) {
    throw new UserError(situationOf(error), 'name a file with what lspci printed');
  }
}
