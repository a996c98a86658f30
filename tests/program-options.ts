// The command line of a test program: its options, `--help`, and one line with the usage for what it does not know.
import { type ParseArgsConfig, parseArgs } from 'node:util';

type Options = NonNullable<ParseArgsConfig['options']>;

/** Ends the process with the usage where it is asked for (0) or needed (2). */
export function programOptions<const T extends Options>(
  usage: string,
  options: T,
): ReturnType<typeof parseArgs<{ options: T }>>['values'] {
  if (asksForHelp(process.argv.slice(2))) {
    process.stdout.write(usage);
    process.exit(0);
  }
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    refuse((error as Error).message, usage);
  }
}

/** What stands behind `--` is somebody else's. */
export function asksForHelp(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return (end < 0 ? args : args.slice(0, end)).some((each) => each === '--help' || each === '-h');
}

/** The caller's mistake, in one line, and how it is meant. */
export function refuse(mistake: string, usage: string): never {
  process.stderr.write(`${mistake}\n${usage}`);
  process.exit(2);
}
