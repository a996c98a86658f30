// A trace for people, one line an event: `12.345678 pf   W SR-IOV Control  0x0019  vfEnable 0→1`.

import { printable, printableJson } from '../../../protocol/printable.ts';
import type { NamedEvent } from './naming.ts';

const WHAT_WIDTH = 26;
const FUNCTION_WIDTH = 4;

/** Escape sequences by what is coloured; all empty where there are to be none. */
export interface Colours {
  readonly time: string;
  readonly write: string;
  readonly bad: string;
  readonly note: string;
  readonly end: string;
}

export const NO_COLOURS: Colours = { time: '', write: '', bad: '', note: '', end: '' };
export const TERMINAL_COLOURS: Colours = {
  time: '\x1b[2m',
  write: '\x1b[1m',
  bad: '\x1b[31m',
  note: '\x1b[36m',
  end: '\x1b[0m',
};

/** Sorts names with numbers in them: vf2 before vf10. */
export const byNumber = new Intl.Collator('en', { numeric: true }).compare;

/** Seconds since the trace began, to the microsecond. */
export function seconds(nanoseconds: number): string {
  const micros = Math.floor(nanoseconds / 1000);
  const whole = Math.floor(micros / 1e6);
  return `${whole}.${String(micros - whole * 1e6).padStart(6, '0')}`;
}

export function line(named: NamedEvent, colours: Colours): string {
  const { event } = named;
  const time = seconds(event.time).padStart(11);
  const letter = event.kind === 'access' ? (event.isWrite ? 'W' : 'R') : ' ';
  const colour = event.isFailure
    ? colours.bad
    : event.kind !== 'access'
      ? colours.note
      : event.isWrite
        ? colours.write
        : '';
  const text = printable(
    `${event.function.padEnd(FUNCTION_WIDTH)} ${letter} ${named.what.padEnd(WHAT_WIDTH)} ${named.text}`,
  );
  const end = colour === '' ? '' : colours.end;
  const timeEnd = colours.time === '' ? '' : colours.end;
  return `${colours.time}${time}${timeEnd} ${colour}${text}${end}`;
}

/** An event as one line of JSON: times in nanoseconds, data in hexadecimal. */
export function jsonLine({ event, what, text, decoded }: NamedEvent): string {
  const fields = decoded?.fields ?? [];
  const { kind, ...rest } = event;
  return printableJson(
    {
      kind,
      what,
      text,
      ...rest,
      ...(decoded === undefined ? {} : { register: decoded.name, value: decoded.value, fields }),
    },
    (_, value: unknown) => {
      if (typeof value === 'bigint') {
        return `0x${value.toString(16)}`;
      }
      return value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value;
    },
  );
}
