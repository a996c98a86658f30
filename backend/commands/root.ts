// What every command that changes the host asks for first.
import { UserError } from '../../protocol/user-error.ts';

/** Refuses to go on without root. @throws UserError */
export function requireRoot(command: string): void {
  if (process.getuid?.() === 0) {
    return;
  }
  throw new UserError(`${command} needs root`, `run it with sudo`);
}
