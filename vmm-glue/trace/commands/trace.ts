// `trace`: reads what `serve --trace` recorded.

import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import {
  DEFAULT_TRACE_BYTES,
  DEFAULT_TRACE_SIZE,
  parseTraceSize,
  TRACE_SIZE_RULE,
} from '../../../protocol/launch/trace-size.ts';
import { pause } from '../../../protocol/retry.ts';
import type { TraceEvent } from '../../../protocol/trace/events.ts';
import { processClock } from '../../../protocol/unix/process-clock.ts';
import { failedCall, UserError } from '../../../protocol/user-error.ts';
import { explanationLines } from '../explain/explanation-lines.ts';
import { Judgement } from '../explain/judgement.ts';
import { differences } from '../reading/difference.ts';
import { type Filter, filterOf, ONLY } from '../reading/filter.ts';
import { jsonLine, line, NO_COLOURS, TERMINAL_COLOURS } from '../reading/lines.ts';
import { type NamedEvent, Naming } from '../reading/naming.ts';
import { Summary } from '../reading/summary.ts';
import { TraceFile } from '../reading/trace-file.ts';
import { page } from '../timeline/page.ts';
import { perfetto } from '../timeline/perfetto.ts';
import { enablePicture } from '../timeline/svg.ts';
import { timelineOf } from '../timeline/timeline.ts';
import { Output } from './output.ts';
import { switchTrace } from './switch-trace.ts';
import { refuseContradictions, type TraceOptions } from './trace-options.ts';

const LOOK_MILLISECONDS = 100;

export function traceCommand(): Command {
  return new Command('trace')
    .description(
      'Prints a recording of `serve --trace=FILE`, decoded: seconds since its start, function, R or W, register, value, ' +
        'and the fields that changed.',
    )
    .argument('[file]', 'the recording; a backend may still be writing it')
    .option('--function <names>', 'only these functions: pf, vf0, carrier0, …')
    .option('--register <name>', "only accesses to these registers, such as 'SR-IOV *'")
    .option('--since <seconds>', 'only what happened later', since)
    .option('--only <kinds>', `only these, with commas between: ${ONLY.join(', ')}`)
    .option('--follow', 'go on with what is recorded from now on, until Ctrl-C')
    .option('--json', 'one JSON object a line')
    .option('--summary', 'counts, rates and the longest waits instead')
    .option('--start', 'have the backend at --socket-path record into the file from now on')
    .option('--stop', 'end the recording of the backend at --socket-path')
    .option('--socket-path <path>', 'the PF’s socket, for --start and --stop')
    .option(
      '--size <bytes>',
      `with --start: room for the recording (default: ${DEFAULT_TRACE_SIZE})`,
      traceSize,
    )
    .option('--explain', 'what the driver did against the standard, instead')
    .option('--diff <other>', 'where the two recordings part, instead')
    .option('--html <file>', 'write a timeline: one page, for any browser')
    .option('--perfetto <file>', 'write it for ui.perfetto.dev')
    .option('--svg <file>', 'write a picture of the first enable, for documents')
    .addHelpText(
      'after',
      "\nExample:\n  vfio-user-sriov trace /dev/shm/pf.trace --only=writes --register='SR-IOV *'\n",
    )
    .action(trace);
}

async function trace(path: string | undefined, options: TraceOptions): Promise<void> {
  refuseContradictions(options);
  if (options.start === true || options.stop === true) {
    await switchTrace(path, { size: DEFAULT_TRACE_BYTES, ...options });
    return;
  }
  if (path === undefined) {
    throw new UserError('trace needs a file', 'name one that `serve --trace=FILE` wrote', 2);
  }
  await read(path, options);
}

async function read(path: string, options: TraceOptions): Promise<void> {
  if (options.since !== undefined && !Number.isFinite(options.since)) {
    throw new UserError('--since is no number of seconds', 'give seconds, such as --since=12.5', 2);
  }
  const isShown = filterOf(options);
  const file = new TraceFile(path);
  const files: (readonly [path: string, file: TraceFile])[] = [[path, file]];
  const output = new Output(process.stdout);
  if (options.summary === true) {
    const summary = new Summary();
    for (const event of shownEvents(file, isShown)) {
      summary.add(event);
    }
    output.lines(summary.lines());
  } else if (options.explain === true) {
    output.lines(explained(file));
  } else if (options.diff !== undefined) {
    const other = new TraceFile(options.diff);
    files.push([options.diff, other]);
    output.lines(diff([file, other], isShown));
  } else if ([options.html, options.perfetto, options.svg].some((each) => each !== undefined)) {
    draw(path, file, options);
  } else {
    await print(file, isShown, options, output);
  }
  await output.end();
  for (const [name, each] of files) {
    complain(name, each);
  }
}

async function print(
  file: TraceFile,
  isShown: Filter,
  options: TraceOptions,
  output: Output,
): Promise<void> {
  const naming = new Naming(file.description, file.startedMonotonic);
  const colours = output.hasColours ? TERMINAL_COLOURS : NO_COLOURS;
  let shown = 0;
  const show = async (events: Iterable<TraceEvent>): Promise<void> => {
    for (const event of events) {
      for (const named of naming.name(event)) {
        if (isShown(named)) {
          shown++;
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
  if (shown === 0 && options.follow !== true) {
    const hint =
      '; --register takes a whole name as it is printed without it, * stands for anything';
    const told = options.register === undefined ? '' : hint;
    process.stderr.write(`nothing of the recording is what was asked for${told}\n`);
  }
  // A recording that somebody has cut short or overwritten does not go on.
  while (options.follow === true && !output.isClosed && file.problems.length === 0) {
    await output.drained();
    await pause(processClock, LOOK_MILLISECONDS);
    await show(file.more());
  }
}

/** NaN where the text is no time that can have passed. */
function since(text: string): number {
  const seconds = text.trim() === '' ? Number.NaN : Number(text);
  return seconds >= 0 ? seconds : Number.NaN;
}

function traceSize(text: string): number {
  const size = parseTraceSize(text);
  if (size === undefined) {
    throw new InvalidArgumentError(TRACE_SIZE_RULE);
  }
  return size;
}

function explained(file: TraceFile): string[] {
  const judgement = new Judgement(file.description, file.startedMonotonic);
  for (const event of file.events()) {
    judgement.see(event);
  }
  judgement.end();
  return explanationLines(judgement.explanation);
}

/** Exit code 1 where they part, as diff(1) has it. */
function diff(files: readonly [TraceFile, TraceFile], isShown: Filter): string[] {
  const [one, other] = files.map((file) => namedEvents(file, isShown));
  const lines = differences(one!, other!);
  if (lines.length === 0) {
    return ['they hold the same accesses'];
  }
  process.exitCode = 1;
  return lines;
}

function* namedEvents(file: TraceFile, isShown: Filter): Generator<NamedEvent> {
  const naming = new Naming(file.description, file.startedMonotonic);
  for (const event of file.events()) {
    yield* naming.name(event).filter(isShown);
  }
}

/** Those of which a line would be shown. */
function* shownEvents(file: TraceFile, isShown: Filter): Generator<TraceEvent> {
  const naming = new Naming(file.description, file.startedMonotonic);
  for (const event of file.events()) {
    if (naming.name(event).some(isShown)) {
      yield event;
    }
  }
}

function draw(path: string, file: TraceFile, options: TraceOptions): void {
  const targets = [options.html, options.perfetto, options.svg].filter(
    (each) => each !== undefined,
  );
  const places = targets.map((target) => resolve(target));
  for (const [at, target] of targets.entries()) {
    if (file.isAt(target)) {
      throw new UserError(`${target} is the recording itself`, 'choose another path');
    }
    if (places.indexOf(places[at]!) !== at) {
      throw new UserError(`${target} is to hold two drawings`, 'give each a path of its own', 2);
    }
  }
  const timeline = timelineOf([...file.events()], file.description, file.startedMonotonic);
  if (options.html !== undefined) {
    write(options.html, page(timeline));
  }
  if (options.perfetto !== undefined) {
    write(options.perfetto, perfetto(timeline));
  }
  if (options.svg !== undefined) {
    const picture = enablePicture(timeline);
    if (picture === undefined) {
      throw new UserError(
        `${path} has no enable after which the guest looked at its VFs`,
        'record one, or draw all of it with --html',
      );
    }
    write(options.svg, picture);
  }
}

function write(path: string, content: string | Uint8Array): void {
  try {
    writeFileSync(path, content);
  } catch (error) {
    throw failedCall(error, 'choose a path that you may write to, where there is room');
  }
}

/** One line for a file that could not be read to its end; exit code 1. */
export function complain(path: string, { problems, isReplaced }: TraceFile): void {
  if (problems.length === 0) {
    return;
  }
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
  throw new UserError(
    `${path} was read as far as it goes: ${problems[0]}${more}`,
    isReplaced
      ? 'follow the one that is there now with `trace --follow`'
      : 'copy it only while nothing writes it',
  );
}
