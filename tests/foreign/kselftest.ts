// What a kselftest printed, in TAP ("Test Anything Protocol" as the kernel writes it), as values.

/** One case: `reason` is what a SKIP said, or the lines that the case printed before it failed. */
export interface Case {
  readonly name: string;
  readonly outcome: 'ok' | 'not ok' | 'skipped';
  readonly reason: string;
}

const RESULT = /^(not )?ok \d+ (\S+)(?: # SKIP ?(.*))?/;

/** The cases in order. */
export function casesOf(output: string): Case[] {
  const cases: Case[] = [];
  let said: string[] = [];
  for (const line of output.split('\n')) {
    const result = RESULT.exec(line);
    if (result === null) {
      said.push(line);
      continue;
    }
    const [, not, name = '', skip] = result;
    if (not !== undefined) {
      cases.push({ name, outcome: 'not ok', reason: said.join('\n') });
    } else {
      cases.push({ name, outcome: skip === undefined ? 'ok' : 'skipped', reason: skip ?? '' });
    }
    said = [];
  }
  return cases;
}
