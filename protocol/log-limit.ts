// Keeps a guest, a VMM or another client from filling the host's disk: what it can cause to be logged, it can cause a
// million times. A bucket of bytes for each level, with a low refill: a burst is logged in full, a flood is counted.
import type { Clock } from './clock.ts';
import { type Log, type LogLevel, type LogSink, logInto } from './log.ts';

/** Bytes a second that a level may have in the long run. Those of the default level and above: 46 MB a day. */
const REFILL: Readonly<Record<LogLevel, number>> = {
  trace: 20_000,
  debug: 20_000,
  info: 130,
  warn: 200,
  error: 200,
};

/** Bytes that a quiet level has saved up at most. */
const BURST = 32 * 1024;

/** What a line has besides its text and fields: time, level, punctuation. */
const LINE_OVERHEAD = 64;

/** A guest that floods the log in one go is told of this much later. */
const REPORT_AFTER_MILLISECONDS = 10_000;

interface Bucket {
  bytes: number;
  filledAt: number;
  leftOut: number;
  isReportDue: boolean;
}

/**
 * `log` for lines that somebody else can cause at will: what is beyond the limit is left out, and how much it was is
 * told. `clock` should be one whose timers keep nothing alive.
 */
export function limitedLog(log: Log, clock: Clock): Log {
  return logInto(limitedSink((level, message, fields) => log[level](message, fields), clock));
}

/** As limitedLog, for a sink. */
export function limitedSink(sink: LogSink, clock: Clock): LogSink {
  const buckets = new Map<LogLevel, Bucket>();

  const bucketOf = (level: LogLevel): Bucket => {
    const now = clock.now();
    const bucket = buckets.get(level) ?? {
      bytes: BURST,
      filledAt: now,
      leftOut: 0,
      isReportDue: false,
    };
    buckets.set(level, bucket);
    bucket.bytes = Math.min(BURST, bucket.bytes + ((now - bucket.filledAt) / 1000) * REFILL[level]);
    bucket.filledAt = now;
    return bucket;
  };

  const report = (level: LogLevel, bucket: Bucket): void => {
    if (bucket.leftOut === 0) {
      return;
    }
    const message = `${bucket.leftOut} lines like these were left out`;
    bucket.leftOut = 0;
    bucket.bytes -= LINE_OVERHEAD + message.length;
    sink(level, message, {});
  };

  const reportLater = (level: LogLevel, bucket: Bucket): void => {
    if (bucket.isReportDue) {
      return;
    }
    bucket.isReportDue = true;
    clock.after(REPORT_AFTER_MILLISECONDS, () => {
      bucket.isReportDue = false;
      report(level, bucketOf(level));
    });
  };

  return (level, message, fields) => {
    const bucket = bucketOf(level);
    // Most lines of a flood are left out, and cost no more than this.
    const isFull = bucket.bytes < LINE_OVERHEAD + message.length;
    const cost = isFull ? 0 : LINE_OVERHEAD + bytesOf(message) + bytesOf(fields);
    if (isFull || bucket.bytes < cost) {
      bucket.leftOut++;
      reportLater(level, bucket);
      return;
    }
    report(level, bucket);
    bucket.bytes -= cost;
    sink(level, message, fields);
  };
}

/** Bytes of it as JSON at most: a character beyond ASCII may be written as an escape. */
function bytesOf(value: unknown): number {
  const text = JSON.stringify(value, (_key, part) =>
    typeof part === 'bigint' ? String(part) : part,
  );
  return text.length * (/^[\x20-\x7e]*$/.test(text) ? 1 : 6);
}
