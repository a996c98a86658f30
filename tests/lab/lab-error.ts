// What the lab throws when it cannot give what was asked for: one line that names the thing, the cause and the fix.
// The lab's command line prints it without a stack; tests show it as it is.

/** A failure that the person who runs the lab can do something about. */
export class LabError extends Error {
  override readonly name = 'LabError';

  constructor(thing: string, cause: string, fix: string) {
    super(`${thing}: ${oneLine(cause)}; ${fix}`);
  }
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, ' | ');
}
