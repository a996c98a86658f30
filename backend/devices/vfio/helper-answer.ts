// What the program of a HelperProcess answers with. Imported by those programs alone.
import '../../../protocol/unix/no-debugger.ts';
import type { Numbered } from './helper-process.ts';

// A backend that was killed has nobody left who wants an answer.
process.stdout.on('error', () => {});

/** The number of no request: the program runs. */
const IS_UP: Numbered = { id: 0 };

export function answer(message: Numbered): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

answer(IS_UP);
