// `profile`: makes a profile of a card from what lspci printed of it, for `serve --profile`.
import { Command, InvalidArgumentError } from 'commander';
import { parseBytes } from '../../protocol/launch/option-values.ts';
import { readWholeFile } from '../../protocol/unix/whole-file.ts';
import { failedCall, UserError } from '../../protocol/user-error.ts';
import { encodeProfile } from '../devices/device-profile.ts';
import { describeLspci } from '../devices/lspci-profile.ts';
import { LspciTextError, parseLspci } from '../devices/lspci-text.ts';
import { writeOutput } from './output-file.ts';

interface ProfileOptions {
  readonly output: string;
  readonly name?: string;
  readonly source?: string;
  readonly vfBars?: ReadonlyMap<number, number>;
}

export function profileCommand(): Command {
  return new Command('profile')
    .description(
      'Makes a profile of a card from the text that `lspci -vvv -xxxx` prints, as root, of a PF and of one of its VFs: for ' +
        '`serve --profile` with any device in RAM, which then looks like that card.',
    )
    .argument('<text>', 'the text in a file; - for standard input')
    .option('--name <text>', 'what the card is called (default: its address)')
    .option('--source <text>', 'where the text is from: kept in the profile, for people')
    .option(
      '--vf-bars <sizes>',
      'where the text has no VF, how large its BARs are: 0:16K,3:16K; the rest is made after the PF',
      vfBarSizes,
    )
    .requiredOption('--output <file>', 'where to write the profile')
    .addHelpText(
      'after',
      '\nExample:\n  (lspci -vvv -xxxx -s 01:00.0; lspci -vvv -xxxx -s 01:10.0) >card.txt\n' +
        '  vfio-user-sriov profile card.txt --output=card.json\n',
    )
    .action((path: string, { output, ...options }: ProfileOptions) => {
      writeOutput(output, profileFrom(path, options));
      process.stdout.write(`wrote ${output}\n`);
    });
}

function vfBarSizes(text: string): ReadonlyMap<number, number> {
  const sizes = text.split(',').map((each): [number, number | undefined] => {
    const [, index, size = ''] = /^([0-5]):(.+)$/.exec(each) ?? [];
    return [Number(index), parseBytes(size)];
  });
  const isSense = ([index, size]: [number, number | undefined]): boolean =>
    !Number.isNaN(index) && size !== undefined && size >= 16 && Number.isInteger(Math.log2(size));
  if (!sizes.every(isSense)) {
    throw new InvalidArgumentError('It must be BARs and powers of two, like 0:16K,3:16K.');
  }
  return new Map(sizes as [number, number][]);
}

function profileFrom(
  path: string,
  { name, source, vfBars }: Omit<ProfileOptions, 'output'>,
): string {
  try {
    const description = describeLspci(parseLspci(read(path)), { name, vfBarSizes: vfBars });
    return encodeProfile(description, source);
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
    return readWholeFile(path === '-' ? 0 : path);
  } catch (error) {
    throw failedCall(error, 'name a file with what lspci printed');
  }
}
