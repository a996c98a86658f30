// An error whose cause the person at the terminal can mend: printed as one line, without a stack.
// Thrown by any command; cli.ts prints it and exits with its code.
import { ExplainedError, fixOf, situationOf } from './explained-error.ts';

/** A text of the person's, and the character in it, from 0, that is at fault. */
export interface Excerpt {
  readonly text: string;
  readonly position: number;
}

/** `what`: the thing and the cause; `fix`: what to do about it; `exitCode`: 2 for wrong usage, else 1. */
export class UserError extends ExplainedError {
  override readonly name: string = 'UserError';
  declare readonly fix: string;
  readonly exitCode: number;
  readonly excerpt: Excerpt | undefined;

  constructor(what: string, fix: string, exitCode = 1, excerpt?: Excerpt) {
    super({ what, fix });
    this.exitCode = exitCode;
    this.excerpt = excerpt;
  }
}

/**
 * A call that failed, as the person's error. `fix`: what helps where the call's own error does not know; `about`: what the
 * call was for, an option's name mostly.
 */
export function failedCall(error: unknown, fix: string, about?: string): UserError {
  const situation = situationOf(error);
  return new UserError(
    about === undefined ? situation : `${about}: ${situation}`,
    fixOf(error) ?? fix,
  );
}
