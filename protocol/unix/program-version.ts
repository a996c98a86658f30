// The version of this program: the package's own, whether it runs from its sources or as it was built.
import { existsSync, readFileSync } from 'node:fs';

/** `0.2.0` */
export function programVersion(): string {
  const fromSource = new URL('../../package.json', import.meta.url);
  const file = existsSync(fromSource)
    ? fromSource
    : new URL('../../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}

/** Name and version, as glue and backend tell each other: `vfio-user-sriov 0.2.0`. */
export function programName(): string {
  return `vfio-user-sriov ${programVersion()}`;
}
