// How much of a test is told: `.ci/run --full` sets FULL=1 for the tests that boot virtual machines.

/** The long form. */
export const IS_FULL = process.env.FULL === '1';

/** A count for every run, and one for the long form. */
export function amountOf(amounts: { readonly usual: number; readonly full: number }): number {
  return IS_FULL ? amounts.full : amounts.usual;
}
