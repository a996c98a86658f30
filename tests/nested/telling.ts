// When a story counts as told: at once, or at its second telling where the emulator spoiled the first (README.md, "When the
// inner guest stands still"). Any other failure is ours, and final. Pure.
import { EmulatorFault } from './inside/story.ts';

export type Outcome = 'passed' | 'passed when told again' | 'failed';

/** Tells a story, and once more if the emulator is to blame. */
export async function outcomeOf(
  tell: (telling: number) => Promise<void>,
  failed: (error: unknown) => void,
): Promise<Outcome> {
  try {
    await tell(1);
    return 'passed';
  } catch (error) {
    failed(error);
    if (!(error instanceof EmulatorFault)) {
      return 'failed';
    }
  }
  try {
    await tell(2);
    return 'passed when told again';
  } catch (error) {
    failed(error);
    return 'failed';
  }
}

/** The last line of a run: `5 passed, 1 failed`, and how many of those that passed were told again. */
export function closingLine(outcomes: readonly Outcome[]): string {
  const failed = outcomes.filter((outcome) => outcome === 'failed').length;
  const again = outcomes.filter((outcome) => outcome === 'passed when told again').length;
  const line = `${outcomes.length - failed} passed, ${failed} failed`;
  return again === 0 ? line : `${line}, ${again} told again`;
}
