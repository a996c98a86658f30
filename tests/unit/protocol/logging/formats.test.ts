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

it('a stack is for people in lines, one a frame; what else breaks a line is escaped', async () => {
  const format = await formatFor('pretty', { hasColours: false });
  const msg =
    'my-card: failed: Error: one\ntwo\n    at send (card.ts:69:27)\n    at written (card.ts:61:7)';
  const lines = format(`${JSON.stringify({ level: 50, time: 0, msg })}\n`).split('\n');
  expect(lines.slice(1)).toEqual([
    '    at send (card.ts:69:27)',
    '    at written (card.ts:61:7)',
    '',
  ]);
  expect(lines[0]).toMatch(/ERROR: my-card: failed: Error: one\\u000atwo$/);
});
