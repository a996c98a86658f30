// The argument parser of every option of this folder that is a number.
import { InvalidArgumentError } from 'commander';
import { parseWholeNumber } from '../../protocol/launch/option-values.ts';

/** Reads a whole number of at least `least`. */
export function wholeNumber(least: number) {
  return (text: string): number => {
    const value = parseWholeNumber(text, least);
    if (value === undefined) {
      throw new InvalidArgumentError(`It must be a whole number, ${least} or more.`);
    }
    return value;
  };
}
