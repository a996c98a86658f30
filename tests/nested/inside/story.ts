// How a story is told: it runs inside the virtual host, prints a line for each thing that happened, figures where the
// issue asks for them, and ends at the first thing that is not as it must be.
import { strict as assert } from 'node:assert';

/** What the command line of a story says. */
export interface StoryOptions {
  /** Rounds in a story of rounds, or points in one of points. */
  readonly count: number;
  readonly seed: number;
}

/** What ended a story is not its subject's: the emulator broke the guest. See README.md. */
export class EmulatorFault extends Error {
  override readonly name = 'EmulatorFault';

  constructor(failure?: unknown) {
    super('the emulator delivered an interrupt to a guest that had them disabled', {
      cause: failure,
    });
  }
}

/** How the program of a story ends after an EmulatorFault; 1 after any other failure. */
export const EMULATOR_FAULT_STATUS = 3;

const began = performance.now();

/** Prints a line with the time since the story began. */
export function tell(text: string): void {
  const seconds = ((performance.now() - began) / 1000).toFixed(1).padStart(6);
  process.stdout.write(`${seconds}  ${text}\n`);
}

/** Prints a measured value; the runner repeats these in its summary. */
export function figure(name: string, value: string): void {
  tell(`FIGURE ${name}: ${value}`);
}

/** Prints a VF's value and the PF's, and fails where their ratio is not as it must be. */
export function ratio(
  name: string,
  ofVf: number,
  ofPf: number,
  isRight: (ratio: number) => boolean,
): void {
  const value = ofVf / ofPf;
  figure(name, `VF ${ofVf}, PF ${ofPf}: ${value.toFixed(2)}`);
  assert.ok(isRight(value), `${name}: a ratio of ${value}`);
}

/** Does one thing and tells what it was and how long it took. Rejects with its failure, told as well. */
export async function chapter<T>(what: string, work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  try {
    const result = await work();
    tell(`ok ${what} (${Math.round(performance.now() - start)} ms)`);
    return result;
  } catch (error) {
    tell(`NOT OK ${what} (${Math.round(performance.now() - start)} ms)`);
    throw error;
  }
}

/** Waits until `condition` holds; `what` is asked when it does not. */
export async function until(
  what: string | (() => string),
  condition: () => boolean | Promise<boolean>,
  limitMilliseconds = 15_000,
): Promise<void> {
  const deadline = Date.now() + limitMilliseconds;
  while (!(await condition())) {
    if (Date.now() >= deadline) {
      const missed = typeof what === 'string' ? what : what();
      assert.fail(`${missed}: not within ${limitMilliseconds} ms`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Numbers that are the same again for the same seed (mulberry32). */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}
