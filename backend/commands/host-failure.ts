// Failures of the host as what a person at the terminal gets: one line with cause and fix, no stack. Used by every
// command that touches the host.
import { situationIn } from '../../protocol/explained-error.ts';
import { UserError } from '../../protocol/user-error.ts';
import { HostError } from '../device/physical-device.ts';

/** Runs a command's work; a HostError becomes a UserError. */
export async function explained<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof HostError)) {
      throw error;
    }
    throw new UserError(situationIn(error), error.fix ?? 'see dmesg');
  }
}

/** Refuses to go on without root. @throws UserError */
export function requireRoot(command: string): void {
  if (process.getuid?.() === 0) {
    return;
  }
  throw new UserError(`${command} changes drivers and needs root`, `run it with sudo`);
}
