// What is said of a mistake in the command line: commander's words in one line, what helps, and where to look.
import { Command, Option } from 'commander';
import { PROGRAM } from './commands.ts';

const SOCKET_HINT = 'a socket comes after --socket-path=';
const BACKENDS_HINT = `\`${PROGRAM} status\` names those of running backends`;

/**
 * `text`: what commander says; `command`: what it was parsing; `hint`: what that command's users get wrong.
 * Gives one line, without the program's name.
 */
export function tellMistake(text: string, command: Command, hint?: string): string {
  const hints = [
    ...causes(text, command).map(oneLine),
    ...[hint ?? socketHint(text, command) ?? []].flat(),
    `see ${command.parent === null ? '' : `${PROGRAM} `}${command.name()} --help`,
  ];
  return hints.join('; ');
}

/** An option that there is not may be the missing one, misspelt: it comes first. */
function causes(text: string, command: Command): string[] {
  if (text.startsWith('error: unknown option')) {
    const [, flag = ''] = /'(.*)'/s.exec(text) ?? [];
    return [unknownOption(flag, command) ?? text];
  }
  if (text.startsWith('error: required option')) {
    const unknown = command.args.find((each) => /^--?\w/.test(each));
    return [unknown === undefined ? undefined : unknownOption(unknown, command), text].filter(
      (each) => each !== undefined,
    );
  }
  return [text];
}

/** commander's words for an option that there is not, by its name alone: it compares a value that follows as well. */
function unknownOption(flag: string, { options }: Command): string | undefined {
  let said: string | undefined;
  const asked = new Command().exitOverride().configureOutput({
    writeOut: () => {},
    outputError: (text) => {
      said = text;
    },
  });
  for (const { flags } of options) {
    asked.addOption(new Option(flags));
  }
  try {
    asked.parse([flag.replace(/=.*/s, '')], { from: 'user' });
  } catch {}
  return said;
}

function socketHint(text: string, command: Command): string | undefined {
  if (text.startsWith("error: required option '--socket-path")) {
    return BACKENDS_HINT;
  }
  return isStraySocket(text, command) ? SOCKET_HINT : undefined;
}

/** Whether an argument too many may be the path of a socket. */
function isStraySocket(text: string, { options }: Command): boolean {
  return (
    text.startsWith('error: too many arguments') &&
    options.some(({ long }) => long === '--socket-path')
  );
}

/** commander's `error: cause.`, with its suggestion on a line of its own. */
function oneLine(text: string): string {
  return text
    .trim()
    .replace(/^error: /, '')
    .replace(/\.$/, '')
    .replaceAll('\n', ' ');
}
