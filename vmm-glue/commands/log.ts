// The log of the commands of this folder: pino on standard error, for people or as JSON.
import { Option } from 'commander';
import { pino } from 'pino';
import pretty from 'pino-pretty';
import type { Log } from '../qemu/log.ts';

const LEVELS = ['debug', 'info', 'warn', 'error', 'silent'];

export interface LogOptions {
  readonly logLevel: string;
  readonly logFormat: 'json' | 'pretty';
}

/** The options that every command takes for its log. */
export function logOptions(): Option[] {
  return [
    new Option('--log-level <level>', 'least level that is logged').choices(LEVELS).default('info'),
    new Option('--log-format <format>', 'json lines, or text for people')
      .choices(['json', 'pretty'])
      .default(process.stderr.isTTY ? 'pretty' : 'json'),
  ];
}

/** Lines are written before the call returns, so none is lost at an exit. */
export function createLog(options: LogOptions): Log {
  const stream =
    options.logFormat === 'json'
      ? pino.destination({ fd: 2, sync: true })
      : pretty({ destination: 2, sync: true, translateTime: 'HH:MM:ss.l', singleLine: true });
  return pino({ level: options.logLevel, base: null }, stream);
}
