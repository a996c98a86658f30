// Logs: pino on standard error, as JSON lines or for people. Standard output is for the ready line alone.

import { Option } from 'commander';
import { type DestinationStream, type Logger, pino } from 'pino';
import type { Log } from '../server/connection.ts';

const LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;

export interface LogOptions {
  readonly logLevel: string;
  readonly logFormat: string;
}

/** The two options that every command with a log has. */
export function logOptions(): Option[] {
  return [
    new Option('--log-level <level>', 'least level that is logged').choices(LEVELS).default('info'),
    new Option('--log-format <format>', 'json lines, or text for people')
      .choices(['json', 'pretty'])
      .default(process.stderr.isTTY ? 'pretty' : 'json'),
  ];
}

export async function makeLogger(options: LogOptions): Promise<Logger> {
  const destination = await destinationFor(options.logFormat);
  return pino({ level: options.logLevel, base: null }, destination);
}

export function logTo(logger: Logger): Log {
  return (level, message, fields) => logger[level](fields ?? {}, message);
}

async function destinationFor(format: string): Promise<DestinationStream> {
  if (format === 'json') {
    return pino.destination({ fd: 2, sync: true });
  }
  const { default: pretty } = await import('pino-pretty');
  return pretty({ destination: 2, sync: true, translateTime: 'HH:MM:ss.l', singleLine: true });
}
