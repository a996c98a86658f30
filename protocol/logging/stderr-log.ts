// The log of every command: pino on standard error, as JSON lines or for people. Standard output is for what a command
// answers alone.
import { Option } from 'commander';
import { type DestinationStream, pino } from 'pino';
import { LOG_LEVELS, type Log, type LogLevel, logInto } from '../log.ts';

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

/** Lines are written before the call returns, so none is lost at an exit. */
export async function makeLog(options: LogOptions): Promise<Log> {
  const logger = pino(
    { level: options.logLevel, base: null },
    await destinationFor(options.logFormat),
  );
  return logInto((level, message, fields) => logger[level](fields, message));
}

async function destinationFor(format: string): Promise<DestinationStream> {
  if (format === 'json') {
    return pino.destination({ fd: 2, sync: true });
  }
  const { default: pretty } = await import('pino-pretty');
  return pretty({ destination: 2, sync: true, translateTime: 'HH:MM:ss.l', singleLine: true });
}
