// The file that a command is told to write by --output.
import { type WriteFileOptions, writeFileSync } from 'node:fs';
import { failedCall } from '../../protocol/user-error.ts';

/** @throws UserError */
export function writeOutput(path: string, text: string, options?: WriteFileOptions): void {
  try {
    writeFileSync(path, text, options);
  } catch (error) {
    throw failedCall(error, 'choose another file', '--output');
  }
}
