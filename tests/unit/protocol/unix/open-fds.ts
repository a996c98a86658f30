// Counts this process's fds, so that a test can tell that none leaked.
import { readdirSync } from 'node:fs';

/** How many fds are open; the one that reads the folder itself counts each time alike. */
export function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}
