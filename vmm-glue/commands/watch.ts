// `status --watch`: the status again and again, in place on a terminal, and one frame below the other where the output is
// none, or a dumb one. Without colours, so that it reads the same everywhere.
import { once } from 'node:events';
import type { Clock } from '../../protocol/clock.ts';
import { elapsed } from '../../protocol/retry.ts';
import { frame, type Look, type Screen } from './watch-text.ts';

/** Where frames go: `process.stdout`. */
export type WatchOutput = NodeJS.WriteStream;

export interface WatchOptions {
  readonly output: WatchOutput;
  readonly milliseconds: number;
  readonly clock: Clock;
  /** Aborted when it is to end. */
  readonly signal: AbortSignal;
  readonly isDumb?: boolean;
  /** Rejects when the backend does not answer any more: the watch ends with that. */
  ask(): Promise<Omit<Look, 'at'>>;
}

/** The other screen of a terminal, so that what was on this one comes back; no cursor, no wrapped lines. */
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l';
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const TO_LINE_END = '\x1b[K';
const TO_SCREEN_END = '\x1b[J';
const SMALLEST: Screen = { columns: 80, rows: 24 };
/** Where there is no terminal. */
const PLAIN: Screen = { columns: SMALLEST.columns, rows: Number.POSITIVE_INFINITY };

/** Until the signal, or until the output takes no more: nobody reads it, or its disk is full. */
export async function watch(options: WatchOptions): Promise<void> {
  const { output, milliseconds, clock, isDumb, ask } = options;
  const unread = new AbortController();
  const nobodyReads = (): void => unread.abort();
  // Standard output stays writable, whatever becomes of who reads it.
  output.on('error', nobodyReads);
  const signal = AbortSignal.any([options.signal, unread.signal]);
  const isTerminal = output.isTTY === true && isDumb !== true;
  let now: Look | undefined;
  let before: Look | undefined;
  const draw = (): void => {
    if (now !== undefined) {
      output.write(isTerminal ? inPlace(frame(now, before, screenOf(output))) : plain(now, before));
    }
  };
  const leave = (): void => void output.write(LEAVE);
  if (isTerminal) {
    output.write(ENTER);
    process.on('exit', leave);
    output.on('resize', draw);
  }
  try {
    while (!signal.aborted) {
      const look = await ask();
      before = now;
      now = { at: clock.now(), ...look };
      draw();
      if (output.writableNeedDrain) {
        await Promise.race([once(output, 'drain', { signal }), once(output, 'close', { signal })]);
      }
      await elapsed(clock, milliseconds, signal);
    }
  } catch (error) {
    if (!signal.aborted) {
      throw error;
    }
  } finally {
    output.off('error', nobodyReads);
    if (isTerminal) {
      output.off('resize', draw);
      process.off('exit', leave);
      leave();
    }
  }
}

/** A serial line knows no size, and says 0. */
function screenOf({ columns, rows }: WatchOutput): Screen {
  return { columns: columns || SMALLEST.columns, rows: rows || SMALLEST.rows };
}

function inPlace(lines: readonly string[]): string {
  return `${HOME}${lines.map((line) => line + TO_LINE_END).join('\r\n')}${TO_SCREEN_END}`;
}

function plain(now: Look, before: Look | undefined): string {
  return `${frame(now, before, PLAIN).join('\n')}\n\n`;
}
