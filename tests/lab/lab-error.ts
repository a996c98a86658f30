// What the lab throws when it cannot give what was asked for: a line that names the thing, the cause and the fix.
// The lab's command line prints it without a stack; tests show it as it is.

/** A failure that the person who runs the lab can do something about. */
export class LabError extends Error {
  override readonly name = 'LabError';

  /** `report`: what another program said, below that line as it stands. */
  constructor(thing: string, cause: string, fix: string, report = '') {
    super(`${thing}: ${oneLine(cause)}; ${fix}\n${report}`.trimEnd());
  }
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, ' | ');
}
