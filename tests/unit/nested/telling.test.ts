// A story is told again for the emulator's fault alone, and once.
import { expect, it } from 'vitest';
import { EmulatorFault } from '../../nested/inside/story.ts';
import { closingLine, outcomeOf } from '../../nested/telling.ts';

const OURS = new Error('a VF is missing');
const EMULATORS = new EmulatorFault('the guest stands still');

/** Tells a story whose tellings end as given, undefined is well. */
async function told(...ends: (Error | undefined)[]) {
  const tellings: number[] = [];
  const failures: unknown[] = [];
  const outcome = await outcomeOf(
    async (telling) => {
      tellings.push(telling);
      const end = ends[telling - 1];
      if (end !== undefined) {
        throw end;
      }
    },
    (error) => failures.push(error),
  );
  return { outcome, tellings, failures };
}

it.each([
  ['that goes well is told once', [undefined], 'passed', [1]],
  [
    'that the emulator spoiled is told again',
    [EMULATORS, undefined],
    'passed when told again',
    [1, 2],
  ],
  ['that the emulator spoiled twice has failed', [EMULATORS, EMULATORS], 'failed', [1, 2]],
  ['that fails by our fault is not told again', [OURS], 'failed', [1]],
  ['that fails by our fault when told again has failed', [EMULATORS, OURS], 'failed', [1, 2]],
] as const)('a story %s', async (_what, ends, outcome, tellings) => {
  expect(await told(...ends)).toEqual({
    outcome,
    tellings,
    failures: ends.filter((end) => end !== undefined),
  });
});

it('the closing line counts what was told again', () => {
  expect(closingLine(['passed', 'failed', 'passed'])).toBe('2 passed, 1 failed');
  expect(closingLine(['passed', 'passed when told again'])).toBe(
    '2 passed, 0 failed, 1 told again',
  );
});
