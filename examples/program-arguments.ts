// The command line of a demo: hardly an argument, and `--help`.

const OK = 0;
const WRONG_USAGE = 2;

/** The arguments that were given, `most` of them; ends the process with the usage where it is asked for or needed. */
export function argumentsOf(usage: string, most = 0): readonly string[] {
  const given = process.argv.slice(2);
  if (given.includes('--help') || given.includes('-h')) {
    process.stdout.write(usage);
    process.exit(OK);
  }
  if (given.length > most || given.some((each) => each.startsWith('-'))) {
    process.stderr.write(`there is no "${given.join(' ')}"\n${usage}`);
    process.exit(WRONG_USAGE);
  }
  return given;
}
