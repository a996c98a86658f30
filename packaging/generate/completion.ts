// Completion for bash and zsh, made of what commands say of themselves: subcommands, options, and what an option's value
// may be. Pure.
import { type DescribedCommand, type DescribedOption, takesPath } from './describe-command.ts';

/** A script for bash-completion's folder. */
export function bashCompletion(program: string, commands: readonly DescribedCommand[]): string {
  const name = `_${program.replaceAll('-', '_')}`;
  const options = commands.map(
    (command) =>
      `    ${command.name}) words='${[...argumentWords(command), ...optionWords(command)].join(' ')}' ;;`,
  );
  const values = commands.flatMap((command) =>
    command.options
      .filter(({ value }) => value !== undefined)
      .map((option) => `    ${command.name}:${option.long}) ${bashValue(option)} ;;`),
  );
  return `# bash completion for ${program}
${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} command=\${COMP_WORDS[1]}
  local option='' words=''
  COMPREPLY=()
  # bash makes a word of its own of the = in --option=value.
  if [ "$current" = = ]; then
    option=$before current=''
  elif [ "$before" = = ]; then
    option=\${COMP_WORDS[COMP_CWORD - 2]}
  elif [ "\${before#--}" != "$before" ]; then
    option=$before
  fi
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '${commands.map((command) => command.name).join(' ')} help' -- "$current"))
    return
  fi
  case $command:$option in
${values.join('\n')}
  esac
  case $command in
${options.join('\n')}
  esac
  compopt -o nospace 2>/dev/null
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F ${name} ${program}
`;
}

/** A script for zsh's fpath, where it is called `_PROGRAM`. */
export function zshCompletion(program: string, commands: readonly DescribedCommand[]): string {
  const summaries = commands.map(({ name, summary }) => `    ${quoted(`${name}:${summary}`)}`);
  const cases = commands.map(
    (command) =>
      `    ${command.name})\n      _arguments -S ${[...command.options.map(zshOption), ...zshArguments(command)].join(' ')}\n      ;;`,
  );
  return `#compdef ${program}
_${program}() {
  local -a commands
  commands=(
${summaries.join('\n')}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join('\n')}
  esac
}
if [ "$funcstack[1]" = _${program} ]; then
  _${program} "$@"
fi
`;
}

function argumentWords({ positional }: DescribedCommand): string[] {
  return positional.flatMap(({ choices }) => choices);
}

/** A value follows `=`. */
function optionWords({ options }: DescribedCommand): string[] {
  return [...options.map(({ long, value }) => (value === undefined ? long : `${long}=`)), '--help'];
}

function bashValue(option: DescribedOption): string {
  if (option.choices.length > 0) {
    return `COMPREPLY=($(compgen -W '${option.choices.join(' ')}' -- "$current")); return`;
  }
  return takesPath(option)
    ? 'compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$current")); return'
    : 'return';
}

function zshOption(option: DescribedOption): string {
  const text = option.description.replace(/[[\]\\:]/g, (mark) => `\\${mark}`);
  if (option.value === undefined) {
    return quoted(`${option.long}[${text}]`);
  }
  const values =
    option.choices.length > 0
      ? `(${option.choices.join(' ')})`
      : takesPath(option)
        ? '_files'
        : ' ';
  return quoted(`${option.long}=[${text}]:${option.value}:${values}`);
}

/** Those that have choices, and files for the others. */
function zshArguments({ positional }: DescribedCommand): string[] {
  const chosen = positional.flatMap(({ name, choices }, index) =>
    choices.length === 0 ? [] : [quoted(`${index + 1}:${name}:(${choices.join(' ')})`)],
  );
  return [...chosen, quoted('*:file:_files')];
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
