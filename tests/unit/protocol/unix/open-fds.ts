// Counts this process's fds, so that a test can tell that none leaked.
import { readdirSync } from 'node:fs';
import { afterEach, beforeEach, expect } from 'vitest';

/** How many fds are open; the one that reads the folder itself counts each time alike. */
export function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Fails each test of the file that leaves an fd open. */
export function leaveNoFdOpen(): void {
  let before: number;
  beforeEach(() => {
    before = openFds();
  });
  afterEach(() => expect(openFds()).toBe(before));
}
