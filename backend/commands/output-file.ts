// The file that a command is told to write by --output.
import { type WriteFileOptions, writeFileSync } from 'node:fs';
import { fixOf, situationOf } from '../../protocol/explained-error.ts';
import { UserError } from '../../protocol/user-error.ts';

/** @throws UserError */
export function writeOutput(path: string, text: string, options?: WriteFileOptions): void {
  try {
    writeFileSync(path, text, options);
  } catch (error) {
    throw new UserError(`--output: ${situationOf(error)}`, fixOf(error) ?? 'choose another file');
  }
}
