// Both forms of a log line: what a client has written is in it, and nothing of that is a terminal's command.
import { expect, it } from 'vitest';
import { formatFor } from '../../../../protocol/logging/stderr-log.ts';

/** Clears the screen, by two characters and by one. */
const HOSTILE = 'say \u001b[2J and \u009b2J\nERROR: not of this program';

it.each(['json', 'pretty'] as const)('a line for %s is one line, and harmless', async (kind) => {
  const format = await formatFor(kind, { hasColours: false });
  const line = format(`${JSON.stringify({ level: 30, time: 0, holder: HOSTILE, msg: HOSTILE })}\n`);
  expect(line.endsWith('\n')).toBe(true);
  expect(line.trimEnd()).not.toMatch(/\p{Cc}/u);
  expect(line.split('[2J')).toHaveLength(3);
});
