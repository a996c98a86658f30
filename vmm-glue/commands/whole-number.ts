// The argument parser of every option of this folder that is a number.
import { InvalidArgumentError } from 'commander';
import { parseWholeNumber } from '../../protocol/launch/option-values.ts';

/** Reads a whole number from `least` to `most`. */
export function wholeNumber(least: number, most = Number.MAX_SAFE_INTEGER) {
  return (text: string): number => {
    const value = parseWholeNumber(text, least, most);
    if (value === undefined) {
      const range = most === Number.MAX_SAFE_INTEGER ? `${least} or more` : `${least} to ${most}`;
      throw new InvalidArgumentError(`It must be a whole number, ${range}.`);
    }
    return value;
  };
}
