// `trace`: reads what `serve --trace` recorded.

import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { UserError } from '../../protocol/user-error.ts';
import { type FilterOptions, filterOf } from '../reading/filter.ts';
import { jsonLine, line, NO_COLOURS, TERMINAL_COLOURS } from '../reading/lines.ts';
import { Naming } from '../reading/naming.ts';
import { Summary } from '../reading/summary.ts';
import { TraceFile } from '../reading/trace-file.ts';
import { Output } from './output.ts';

const LOOK_MILLISECONDS = 100;

interface TraceOptions extends FilterOptions {
  readonly follow?: true;
  readonly json?: true;
  readonly summary?: true;
}

export function traceCommand(): Command {
  return new Command('trace')
    .summary('shows what a driver did')
    .description(
      'Prints a recording of `serve --trace=FILE`, decoded: seconds since its start, function, R or W, register, value, ' +
        'and the fields that changed.',
    )
    .argument('<file>', 'the recording; a backend may still be writing it')
    .option('--function <names>', 'only these functions: pf, vf0, …')
    .option('--register <name>', "only accesses to these registers, such as 'SR-IOV *'")
    .option('--since <seconds>', 'only what happened later', Number)
    .option('--only <kinds>', 'only writes, reads, or events of these kinds')
    .option('--follow', 'go on with what is recorded from now on, until Ctrl-C')
    .option('--json', 'one JSON object a line')
    .option('--summary', 'counts, rates and the longest waits instead')
    .addHelpText(
      'after',
      "\nExample:\n  vfio-user-sriov trace /dev/shm/pf.trace --only=writes --register='SR-IOV *'\n",
    )
    .action(trace);
}

async function trace(path: string, options: TraceOptions): Promise<void> {
  if (options.since !== undefined && !Number.isFinite(options.since)) {
    throw new UserError('--since is not a number', 'give seconds, such as --since=12.5', 2);
  }
  const isShown = filterOf(options);
  const file = new TraceFile(path);
  const output = new Output(process.stdout);
  if (options.summary === true) {
    const summary = new Summary();
    for (const event of file.events()) {
      summary.add(event);
    }
    output.lines(summary.lines());
  } else {
    await print(file, isShown, options, output);
  }
  await output.end();
  complain(path, file);
}

async function print(
  file: TraceFile,
  isShown: ReturnType<typeof filterOf>,
  options: TraceOptions,
  output: Output,
): Promise<void> {
  const naming = new Naming(file.description);
  const colours = output.hasColours ? TERMINAL_COLOURS : NO_COLOURS;
  const show = async (events: Iterable<Parameters<Naming['name']>[0]>): Promise<void> => {
    for (const event of events) {
      for (const named of naming.name(event)) {
        if (isShown(named)) {
          output.line(options.json === true ? jsonLine(named) : line(named, colours));
        }
      }
      if (output.isFull) {
        await output.drained();
      }
      if (output.isClosed) {
        return;
      }
    }
  };
  await show(file.events());
  while (options.follow === true && !output.isClosed) {
    await output.drained();
    await sleep(LOOK_MILLISECONDS);
    await show(file.more());
  }
}

/** One line for a file that could not be read to its end; exit code 1. */
export function complain(path: string, { problems }: TraceFile): void {
  if (problems.length === 0) {
    return;
  }
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
  throw new UserError(
    `${path} was read as far as it goes: ${problems[0]}${more}`,
    'copy it only while nothing writes it',
  );
}
