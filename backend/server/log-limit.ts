// Keeps a guest from filling the host's disk: what a guest can cause to be logged, it can cause a million times.
// The first lines of a second are logged, the rest are counted, and the count is logged with the next line that is.

import type { LogSink } from '../../protocol/log.ts';

const WINDOW_MILLISECONDS = 1000;

/** `sink`, but at most `linesPerSecond` lines of each level; `now` gives milliseconds. */
export function limitedLog(
  sink: LogSink,
  linesPerSecond: number,
  now: () => number = () => performance.now(),
): LogSink {
  const windows = new Map<string, { began: number; lines: number; suppressed: number }>();
  return (level, message, fields) => {
    const window = windows.get(level) ?? { began: now(), lines: 0, suppressed: 0 };
    windows.set(level, window);
    if (now() - window.began >= WINDOW_MILLISECONDS) {
      if (window.suppressed > 0) {
        sink(level, `${window.suppressed} lines like these were left out`, {});
      }
      Object.assign(window, { began: now(), lines: 0, suppressed: 0 });
    }
    if (window.lines < linesPerSecond) {
      window.lines++;
      sink(level, message, fields);
    } else {
      window.suppressed++;
    }
  };
}
