// Keeps a guest, a VMM or another client from filling the host's disk: what it can cause to be logged, it can cause a
// million times. A bucket of bytes for each level, with a low refill: a burst is logged in full, a flood is counted. A kind
// of line, which is its text without numbers, has a share of it at most, so that a flood of one kind hides no other.
import type { Clock } from './clock.ts';
import { type Log, type LogLevel, type LogSink, logInto } from './log.ts';

/**
 * Bytes a second that a level may have in the long run. Those of the default level and above: 23 MB a day, so that a backend and
 * a glue, which mostly write to one place, stay below 50 MB together.
 */
const REFILL: Readonly<Record<LogLevel, number>> = {
  trace: 20_000,
  debug: 20_000,
  info: 65,
  warn: 100,
  error: 100,
};

/** Bytes that a quiet level has saved up at most. */
const BURST = 32 * 1024;

/** What a line has besides its text and fields: time, level, punctuation. */
const LINE_OVERHEAD = 64;

/** A guest that floods the log in one go is told of this much later. */
const REPORT_AFTER_MILLISECONDS = 10_000;

/** What one kind may have of the burst and of the refill of its level. */
const SHARE_OF_A_KIND = 1 / 2;

/** Kinds of a level that are told apart: somebody else's words are in some lines. The others are one kind. */
const MOST_KINDS = 200;
const OTHERS = '';
const KIND_CHARACTERS = 80;
/** Between two looks for kinds that can be forgotten. */
const FORGET_MILLISECONDS = 1000;

interface Bucket {
  readonly most: number;
  bytes: number;
  filledAt: number;
}

/** The lines of one kind. */
interface Kind {
  readonly bucket: Bucket;
  leftOut: number;
  isReportDue: boolean;
}

interface Level {
  readonly bucket: Bucket;
  /** When kinds were forgotten last. */
  forgotAt: number;
  readonly kinds: Map<string, Kind>;
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
  const levels = new Map<LogLevel, Level>();

  const fill = (bucket: Bucket, refill: number): void => {
    const now = clock.now();
    const gained = ((now - bucket.filledAt) / 1000) * refill;
    bucket.bytes = Math.min(bucket.most, bucket.bytes + gained);
    bucket.filledAt = now;
  };

  const levelOf = (name: LogLevel): Level => {
    const level = levels.get(name) ?? {
      bucket: bucketOf(BURST, clock.now()),
      forgotAt: Number.NEGATIVE_INFINITY,
      kinds: new Map<string, Kind>(),
    };
    levels.set(name, level);
    fill(level.bucket, REFILL[name]);
    return level;
  };

  const kindOf = (name: LogLevel, level: Level, message: string): Kind => {
    const { kinds } = level;
    let key = kindName(message);
    if (!kinds.has(key) && kinds.size >= MOST_KINDS) {
      if (clock.now() - level.forgotAt >= FORGET_MILLISECONDS) {
        level.forgotAt = clock.now();
        forgetQuiet(kinds);
      }
      key = kinds.size >= MOST_KINDS ? OTHERS : key;
    }
    const kind = kinds.get(key) ?? {
      bucket: bucketOf(BURST * SHARE_OF_A_KIND, clock.now()),
      leftOut: 0,
      isReportDue: false,
    };
    kinds.set(key, kind);
    fill(kind.bucket, REFILL[name] * SHARE_OF_A_KIND);
    return kind;
  };

  const take = (level: Level, kind: Kind, bytes: number): void => {
    level.bucket.bytes -= bytes;
    kind.bucket.bytes -= bytes;
  };

  const report = (name: LogLevel, level: Level, kind: Kind, like: string): void => {
    if (kind.leftOut === 0) {
      return;
    }
    const message = `${kind.leftOut} lines like this one were left out: ${like.slice(0, KIND_CHARACTERS)}`;
    kind.leftOut = 0;
    take(level, kind, LINE_OVERHEAD + bytesOf(message));
    sink(name, message, {});
  };

  const reportLater = (name: LogLevel, kind: Kind, like: string): void => {
    if (kind.isReportDue) {
      return;
    }
    kind.isReportDue = true;
    clock.after(REPORT_AFTER_MILLISECONDS, () => {
      kind.isReportDue = false;
      const level = levelOf(name);
      if (level.bucket.bytes > 0) {
        report(name, level, kind, like);
      } else {
        // Many kinds at a time: their reports have no more room than lines have.
        reportLater(name, kind, like);
      }
    });
  };

  return (name, message, fields) => {
    const level = levelOf(name);
    const kind = kindOf(name, level, message);
    const room = Math.min(level.bucket.bytes, kind.bucket.bytes);
    // Most lines of a flood are left out, and cost no more than this.
    const isFull = room < LINE_OVERHEAD + message.length;
    const cost = isFull ? 0 : LINE_OVERHEAD + bytesOf(message) + bytesOf(fields);
    if (isFull || room < cost) {
      kind.leftOut++;
      reportLater(name, kind, message);
      return;
    }
    report(name, level, kind, message);
    take(level, kind, cost);
    sink(name, message, fields);
  };
}

function bucketOf(most: number, now: number): Bucket {
  return { most, bytes: most, filledAt: now };
}

/** `vf3 W Command 0x0006` as `vf# W Command #`. */
function kindName(message: string): string {
  return message.slice(0, KIND_CHARACTERS).replace(/(?:0x[0-9a-f]+|\d+)/g, '#');
}

/** Of those that have something left out, the count is still to be told. */
function forgetQuiet(kinds: Map<string, Kind>): void {
  for (const [key, { leftOut, isReportDue }] of kinds) {
    if (leftOut === 0 && !isReportDue) {
      kinds.delete(key);
    }
  }
}

/** Bytes of it as JSON at most: a character beyond ASCII may be written as an escape. */
function bytesOf(value: unknown): number {
  const text = JSON.stringify(value, (_key, part) =>
    typeof part === 'bigint' ? String(part) : part,
  );
  return text.length * (/^[\x20-\x7e]*$/.test(text) ? 1 : 6);
}
