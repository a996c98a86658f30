// A command as man pages and completion show it: what its definition says, by the definition itself. Pure.
import type { Command } from 'commander';

export interface DescribedOption {
  /** `--socket-path`; a short form, where there is one, comes first in `flags`. */
  readonly long: string;
  /** `--socket-path <path>` */
  readonly flags: string;
  readonly description: string;
  /** What stands in the angle brackets; undefined where it takes no value. */
  readonly value: string | undefined;
  readonly choices: readonly string[];
  readonly defaultValue: string | undefined;
  readonly mandatory: boolean;
}

/** What stands in a command line without a name. */
export interface DescribedArgument {
  readonly name: string;
  readonly description: string;
  readonly choices: readonly string[];
}

export interface DescribedCommand {
  readonly name: string;
  readonly summary: string;
  readonly description: string;
  /** `[options] -- qemu-system-x86_64 ARGUMENTS…` */
  readonly usage: string;
  readonly positional: readonly DescribedArgument[];
  readonly options: readonly DescribedOption[];
  /** Behind its help: examples, each with lines of its own. */
  readonly after: string;
}

/** Values that name files. */
const PATHS = /^(path|file|folder|FILE)$/;

export function takesPath({ value }: DescribedOption): boolean {
  return value !== undefined && PATHS.test(value);
}

export function describeCommand(command: Command, summary: string): DescribedCommand {
  return {
    name: command.name(),
    summary,
    description: command.description(),
    usage: command.usage(),
    positional: command.registeredArguments.map((argument) => ({
      name: argument.name(),
      description: argument.description,
      choices: argument.argChoices ?? [],
    })),
    options: command.options
      .filter(({ hidden }) => !hidden)
      .map((option) => ({
        long: option.long ?? option.flags,
        flags: option.flags,
        description: option.description,
        value: /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1],
        choices: option.argChoices ?? [],
        defaultValue:
          option.defaultValue === undefined
            ? undefined
            : (option.defaultValueDescription ?? String(option.defaultValue as unknown)),
        mandatory: option.mandatory,
      })),
    after: helpAfter(command),
  };
}

/** What stands behind the help that commander makes itself. */
function helpAfter(command: Command): string {
  let text = '';
  command.configureOutput({ writeOut: (more) => (text += more) }).outputHelp();
  return text.slice(command.helpInformation().length).trim();
}
