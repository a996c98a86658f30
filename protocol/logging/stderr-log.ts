// The log of every command: pino on standard error or in a file, as JSON lines or for people. Standard output is for what
// a command answers alone.
import { Option } from 'commander';
import { pino } from 'pino';
import type { Clock } from '../clock.ts';
import { situationOf } from '../explained-error.ts';
import { LOG_LEVELS, type Log, type LogLevel, logInto } from '../log.ts';
import { printable } from '../printable.ts';
import { nonBlockingOutput } from '../unix/non-blocking-output.ts';
import { backgroundClock, wallClockMilliseconds } from '../unix/process-clock.ts';
import { failedCall } from '../user-error.ts';
import { wantsColours } from './colours.ts';
import { LogFile } from './log-file.ts';
import { LogWriter } from './log-writer.ts';

const STDERR = 2;
/** How long an end waits for the reader of lines that are still to be written. */
const LAST_LINES_MILLISECONDS = 300;
const LAST_LINES_STEP_MILLISECONDS = 5;

export interface LogOptions {
  readonly logLevel: LogLevel | 'silent';
  /** Text on a terminal and JSON elsewhere, unless it is said. */
  readonly logFormat?: 'json' | 'pretty';
  readonly logFile?: string;
}

/** A log that may be in a file. */
export interface CommandLog extends Log {
  /** Goes on in a new file, where somebody has renamed the one at hand; undefined on standard error. */
  readonly reopen?: () => void;
}

/** The options that every command with a log has. */
export function logOptions(): Option[] {
  return [
    new Option('--log-level <level>', 'least level that is logged')
      .choices([...LOG_LEVELS, 'silent'])
      .default('info'),
    new Option(
      '--log-format <format>',
      'json lines, or text for people (default: text on a terminal, else json)',
    ).choices(['json', 'pretty']),
    new Option(
      '--log-file <file>',
      'append the log to this file, opened anew on SIGHUP (default: standard error)',
    ),
  ];
}

/** A log on standard error or in a file; a line that cannot be written there is dropped and counted. Called once in a process. @throws UserError */
export async function makeLog(
  options: LogOptions,
  clock: Clock = backgroundClock,
): Promise<CommandLog> {
  const { logFile } = options;
  const isTerminal = logFile === undefined && process.stderr.isTTY === true;
  const format = await formatFor(options.logFormat ?? (isTerminal ? 'pretty' : 'json'), {
    hasColours: logFile === undefined && wantsColours(process.env, isTerminal),
  });
  const file = logFile === undefined ? undefined : openFile(logFile);
  const writer = new LogWriter({
    output: file === undefined ? nonBlockingOutput(STDERR) : (bytes) => file.write(bytes),
    clock,
    lossLine: (count) =>
      format(
        `${JSON.stringify({ level: 40, time: wallClockMilliseconds(), msg: `${count} lines were lost here: nobody read them, or the disk was full` })}\n`,
      ),
  });
  process.on('exit', () => writeLastLines(writer, clock));
  const logger = pino(
    { level: options.logLevel, base: null },
    { write: (line: string) => writer.write(format(line)) },
  );
  const log = logInto((level, message, fields) => logger[level](fields, message));
  return file === undefined ? log : { ...log, reopen: () => reopen(file, log) };
}

function openFile(path: string): LogFile {
  try {
    return new LogFile(path);
  } catch (error) {
    throw failedCall(
      error,
      'name a file that you may write to, in a folder that exists',
      '--log-file',
    );
  }
}

function reopen(file: LogFile, log: Log): void {
  try {
    file.reopen();
    log.info('SIGHUP: the log goes on in this file');
  } catch (error) {
    log.error(`the log stays in the file at hand: ${situationOf(error)}`);
  }
}

/** From pino's line to the one that is written; whoever's text is in it, nothing of it is a terminal's command. */
export async function formatFor(
  format: 'json' | 'pretty',
  { hasColours }: { readonly hasColours: boolean },
): Promise<(line: string) => string> {
  if (format === 'json') {
    return (line) => `${printable(line.slice(0, -1))}\n`;
  }
  const { default: pinoPretty } = await import('pino-pretty');
  const pretty = pinoPretty.prettyFactory({
    colorize: hasColours,
    translateTime: 'HH:MM:ss.l',
    singleLine: true,
  });
  const escaped = (key: string, value: unknown) =>
    typeof value === 'string' ? (key === 'msg' ? stackInLines : printable)(value) : value;
  return (line) => pretty(JSON.parse(line, escaped));
}

/** A stack's frames each on a line, indented as nothing of ours begins; any other line break is escaped. */
function stackInLines(message: string): string {
  return message
    .split(/\n(?= +at )/)
    .map(printable)
    .join('\n');
}

function writeLastLines(writer: LogWriter, clock: Clock): void {
  const deadline = clock.now() + LAST_LINES_MILLISECONDS;
  const never = new Int32Array(new SharedArrayBuffer(4));
  while (!writer.drain() && clock.now() < deadline) {
    Atomics.wait(never, 0, 0, LAST_LINES_STEP_MILLISECONDS);
  }
}
