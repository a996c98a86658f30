// Man pages in roff's man macros (man(7)), made of what commands say of themselves. Pure.
import type { DescribedArgument, DescribedCommand, DescribedOption } from './describe-command.ts';

export interface Release {
  readonly program: string;
  readonly version: string;
  /** `2026-11-27` */
  readonly date: string;
}

/** The page of the program, which names those of its subcommands. */
export function programPage(
  release: Release,
  description: string,
  commands: readonly DescribedCommand[],
): string {
  const { program } = release;
  return [
    heading(release, program),
    '.SH NAME',
    `${roff(program)} \\- an SR\\-IOV device backend over vfio\\-user`,
    '.SH SYNOPSIS',
    `.B ${roff(program)}`,
    '.I command',
    '[options]',
    '.SH DESCRIPTION',
    roff(description),
    '.SH COMMANDS',
    ...commands.flatMap(({ name, summary }) => [
      '.TP',
      `.BR ${roff(`${program}-${name}`)} (1)`,
      roff(summary),
    ]),
    ...EXIT_STATUS,
    '.SH SEE ALSO',
    commands.map(({ name }) => `.BR ${roff(`${program}-${name}`)} (1)`).join(',\n'),
    '',
  ].join('\n');
}

/** The page of a subcommand. */
export function commandPage(release: Release, command: DescribedCommand): string {
  const { program } = release;
  const name = `${program}-${command.name}`;
  return [
    heading(release, name),
    '.SH NAME',
    `${roff(name)} \\- ${roff(command.summary)}`,
    '.SH SYNOPSIS',
    `.B ${roff(`${program} ${command.name}`)}`,
    roff(command.usage),
    '.SH DESCRIPTION',
    roff(command.description),
    ...(command.positional.length === 0 ? [] : ['.SH ARGUMENTS']),
    ...command.positional.flatMap((each) => ['.TP', `.I ${roff(each.name)}`, argumentText(each)]),
    ...(command.options.length === 0 ? [] : ['.SH OPTIONS']),
    ...command.options.flatMap((option) => ['.TP', `.B ${roff(option.flags)}`, optionText(option)]),
    ...(command.after === '' ? [] : afterText(command.after)),
    ...EXIT_STATUS,
    '.SH SEE ALSO',
    `.BR ${roff(program)} (1)`,
    '',
  ].join('\n');
}

const EXIT_STATUS = [
  '.SH EXIT STATUS',
  '.TP',
  '.B 0',
  'what was asked for is done',
  '.TP',
  '.B 1',
  'it could not be done; standard error has one line with the cause and what to do about it',
  '.TP',
  '.B 2',
  'the command line makes no sense',
];

function heading({ program, version, date }: Release, name: string): string {
  return `.TH ${roff(name.toUpperCase())} 1 ${date} "${program} ${version}" "User Commands"`;
}

function argumentText({ description, choices }: DescribedArgument): string {
  return roff(withNotes(description, choicesNote(choices)));
}

function optionText({ description, choices, defaultValue, mandatory }: DescribedOption): string {
  const notes = [
    ...choicesNote(choices),
    ...(defaultValue === undefined ? [] : [`default: ${defaultValue}`]),
    ...(mandatory ? ['required'] : []),
  ];
  return roff(withNotes(description, notes));
}

function choicesNote(choices: readonly string[]): string[] {
  return choices.length === 0 ? [] : [`choices: ${choices.join(', ')}`];
}

function withNotes(text: string, notes: readonly string[]): string {
  return notes.length === 0 ? text : `${text} (${notes.join('; ')})`;
}

/** `Example:` and what is indented below it, as it is written. */
function afterText(after: string): string[] {
  return ['.SH EXAMPLES', '.nf', ...after.split('\n').slice(1).map(roff), '.fi'];
}

/** Text that roff takes for text: no escape, no hyphen, and no request at the start of a line. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .split('\n')
    .map((line) => (/^[.']/.test(line) ? `\\&${line}` : line))
    .join('\n');
}
