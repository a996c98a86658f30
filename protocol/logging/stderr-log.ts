// The log of every command: pino on standard error, as JSON lines or for people. Standard output is for what a command
// answers alone.
import { Option } from 'commander';
import { pino } from 'pino';
import { LOG_LEVELS, type Log, type LogLevel, logInto } from '../log.ts';
import { printable } from '../printable.ts';
import { nonBlockingOutput } from '../unix/non-blocking-output.ts';
import { backgroundClock } from '../unix/process-clock.ts';
import { wantsColours } from './colours.ts';
import { LogWriter } from './log-writer.ts';

const STDERR = 2;
/** How long an end waits for the reader of lines that are still to be written. */
const LAST_LINES_MILLISECONDS = 300;
const LAST_LINES_STEP_MILLISECONDS = 5;

export interface LogOptions {
  readonly logLevel: LogLevel | 'silent';
  readonly logFormat: 'json' | 'pretty';
}

/** The two options that every command with a log has. */
export function logOptions(): Option[] {
  return [
    new Option('--log-level <level>', 'least level that is logged')
      .choices([...LOG_LEVELS, 'silent'])
      .default('info'),
    new Option('--log-format <format>', 'json lines, or text for people')
      .choices(['json', 'pretty'])
      .default(process.stderr.isTTY ? 'pretty' : 'json'),
  ];
}

/** A log on standard error; a line that cannot be written there is dropped and counted. Called once in a process. */
export async function makeLog(options: LogOptions): Promise<Log> {
  const format = await formatFor(options.logFormat);
  const writer = new LogWriter({
    output: nonBlockingOutput(STDERR),
    clock: backgroundClock,
    lossLine: (count) =>
      format(
        `${JSON.stringify({ level: 40, time: Date.now(), msg: `${count} lines were lost here: nobody read them, or the disk was full` })}\n`,
      ),
  });
  process.on('exit', () => writeLastLines(writer));
  const logger = pino(
    { level: options.logLevel, base: null },
    { write: (line: string) => writer.write(format(line)) },
  );
  return logInto((level, message, fields) => logger[level](fields, message));
}

/** From pino's line to the one that is written; whoever's text is in it, nothing of it is a terminal's command. */
async function formatFor(format: LogOptions['logFormat']): Promise<(line: string) => string> {
  if (format === 'json') {
    return (line) => `${printable(line.slice(0, -1))}\n`;
  }
  const { default: pinoPretty } = await import('pino-pretty');
  const pretty = pinoPretty.prettyFactory({
    colorize: wantsColours(process.env, process.stderr.isTTY === true),
    translateTime: 'HH:MM:ss.l',
    singleLine: true,
  });
  const escaped = (_key: string, value: unknown) =>
    typeof value === 'string' ? printable(value) : value;
  return (line) => pretty(JSON.parse(line, escaped));
}

function writeLastLines(writer: LogWriter): void {
  const deadline = performance.now() + LAST_LINES_MILLISECONDS;
  const never = new Int32Array(new SharedArrayBuffer(4));
  while (!writer.drain() && performance.now() < deadline) {
    Atomics.wait(never, 0, 0, LAST_LINES_STEP_MILLISECONDS);
  }
}
