// Paths as whoever calls the lab means them.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { LabError } from './lab-error.ts';

/** npm runs scripts in the package's folder, and says where it was called. Throws LabError where nothing is there. */
export function pathOfCaller(path: string): string {
  const absolute = resolve(process.env.INIT_CWD ?? process.cwd(), path);
  if (!existsSync(absolute)) {
    throw new LabError(path, 'there is nothing at this path', 'name one that exists');
  }
  return absolute;
}
