// What a command that failed says in the end: one line, whatever the error is, and where it is about a place in a text,
// that place below. cli.ts prints it.
import { ExplainedError, SHORTAGE_FIXES, sentenceOf, systemErrorIn } from './explained-error.ts';
import { printable } from './printable.ts';
import { type Excerpt, UserError } from './user-error.ts';

export interface LastWord {
  readonly line: string;
  /** Lines that show the place, where there is one. */
  readonly place?: readonly string[];
  readonly exitCode: number;
}

/** Calls of a stack that are told: enough to find the place. */
const FRAMES = 4;

/** The line, without its end and without the program's name. */
export function lastWord(error: unknown): LastWord {
  if (error instanceof ExplainedError) {
    const { what, fix = 'see dmesg', call, path } = error;
    const line = printable(sentenceOf({ what, fix, call, path }));
    if (!(error instanceof UserError)) {
      return { line, exitCode: 1 };
    }
    const { exitCode, excerpt } = error;
    return { line, exitCode, ...(excerpt === undefined ? {} : { place: placeOf(excerpt) }) };
  }
  const system = systemErrorIn(error);
  if (system !== undefined) {
    return {
      line: printable(
        sentenceOf({
          ...system,
          fix: SHORTAGE_FIXES[system.code] ?? 'check that it exists, and that this user may use it',
        }),
      ),
      exitCode: 1,
    };
  }
  return {
    line: printable(`a fault of this program: ${faultOf(error)}; please report it`),
    exitCode: 1,
  };
}

/** The text, and a caret below the character. */
function placeOf({ text, position }: Excerpt): string[] {
  const before = printable(text.slice(0, position));
  return [`  ${printable(text)}`, `  ${' '.repeat(before.length)}^`];
}

/** `TypeError: x is undefined (at serve.ts:3:4, main.ts:10:2)`. */
function faultOf(error: unknown): string {
  if (!(error instanceof Error)) {
    return String(error);
  }
  const frames = (error.stack ?? '').matchAll(/^ +at (?:.*\()?(?:.*\/)?([^/()]+:\d+:\d+)\)?$/gm);
  const places = [...frames].slice(0, FRAMES).map(([, place]) => place);
  const where = places.length === 0 ? '' : ` (at ${places.join(', ')})`;
  return `${error.name}: ${error.message}${where}`;
}
