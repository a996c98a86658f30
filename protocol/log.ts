// What every part of both sides writes its log through. Pure: where the lines go is the sink's business
// (protocol/logging has the one on standard error; a thread's goes to another thread, a test's into an array).

/** From what is said of each message to what a person must see. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Facts beside a line's text. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Takes the lines. */
export type LogSink = (level: LogLevel, message: string, fields: LogFields) => void;

type Write = (message: string, fields?: LogFields) => void;

export interface Log extends Readonly<Record<LogLevel, Write>> {
  /** A log whose every line has these fields as well: `log.child({ vf: 3 })`. */
  child(fields: LogFields): Log;
}

/** A log into `sink`; `bound` goes with each line. */
export function logInto(sink: LogSink, bound: LogFields = {}): Log {
  const at =
    (level: LogLevel): Write =>
    (message, fields) =>
      sink(level, message, fields === undefined ? bound : { ...bound, ...fields });
  return {
    trace: at('trace'),
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (fields) => logInto(sink, { ...bound, ...fields }),
  };
}

/** `sink`, but for lines below `least`; 'silent': none. */
export function fromLevel(least: LogLevel | 'silent', sink: LogSink): LogSink {
  const first = least === 'silent' ? LOG_LEVELS.length : LOG_LEVELS.indexOf(least);
  return (level, message, fields) => {
    if (LOG_LEVELS.indexOf(level) >= first) {
      sink(level, message, fields);
    }
  };
}

/** Says nothing. */
export const SILENT: Log = logInto(() => {});
