// What this program changed on the host, noted in a small file per PF, so that the next start (or `release`) can undo
// what a process that was killed left behind, and only that. Also the lock that makes a PF one process's.
import { ftruncateSync, readdirSync, rmSync, writeSync } from 'node:fs';
import { Errno } from '../../../protocol/errno.ts';
import { tryLock } from '../../../protocol/unix/flock.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import {
  makePrivateFolder,
  readPrivateFile,
  replacePrivateFile,
} from '../../../protocol/unix/private-file.ts';
import { HostError } from '../../device/physical-device.ts';

/** How `prepare` found a PF, for `release`. */
export interface PreparedState {
  readonly driver: string | null;
  readonly driverOverride: string | null;
  /** vfio-pci's enable_sriov before; null where the module was not loaded. */
  readonly enableSriov: string | null;
  /** Files whose owner was changed, and who owned them. */
  readonly owners: readonly { readonly path: string; readonly uid: number; readonly gid: number }[];
  /** Files that were made. */
  readonly files: readonly string[];
}

export interface PfState {
  /** VFs that this program enabled and has not disabled yet. */
  readonly enabledVfs?: number;
  readonly prepared?: PreparedState;
}

/** Of the file; 0.1.0 wrote it without a number. */
const FORMAT = 1;

/** /run/vfio-user-sriov for root, a folder of the user's session for others. */
export function defaultStateFolder(environment: NodeJS.ProcessEnv = process.env): string {
  if (process.getuid?.() === 0) {
    return '/run/vfio-user-sriov';
  }
  return `${environment.XDG_RUNTIME_DIR ?? `/tmp/vfio-user-sriov-${process.getuid?.()}`}/vfio-user-sriov`;
}

export class HostState {
  readonly #folder: string;
  readonly #path: string;
  /** Looked at once: a guest may stand still while something is noted. */
  #isFolderMade = false;

  constructor(folder: string, pf: string) {
    this.#folder = folder;
    this.#path = `${folder}/${pf}`;
  }

  /** Takes the PF for this process until the returned function is called. @throws HostError EBUSY when another has it. */
  lock(): () => void {
    this.#makeFolder();
    const path = `${this.#path}.lock`;
    const lock = tryLock(path);
    if (lock === undefined) {
      const owner = readText(path);
      throw new HostError(
        'flock',
        Errno.EBUSY,
        path,
        `another backend serves this PF${owner === '' ? '' : ` (pid ${owner})`}`,
        'end it first',
      );
    }
    ftruncateSync(lock);
    writeSync(lock, `${process.pid}\n`);
    return () => closeFd(lock);
  }

  /** @throws HostError where a later version of this program wrote it, which noted what this one does not know to undo */
  read(): PfState {
    const path = `${this.#path}.json`;
    const { version = FORMAT, ...state } = parse(readText(path));
    if (version !== FORMAT) {
      throw new HostError(
        'read',
        Errno.EINVAL,
        path,
        `another version of this program wrote it (format ${version}, this one knows ${FORMAT})`,
        'run `vfio-user-sriov release` of that version',
      );
    }
    return state;
  }

  /** Changes some of it; undefined takes an entry away. */
  update(change: { enabledVfs?: number | undefined; prepared?: PreparedState | undefined }): void {
    const state = { ...this.read(), ...change };
    const entries = Object.entries(state).filter(([, value]) => value !== undefined);
    if (entries.length === 0) {
      rmSync(`${this.#path}.json`, { force: true });
      return;
    }
    this.#makeFolder();
    const noted = { version: FORMAT, ...Object.fromEntries(entries) };
    replacePrivateFile(`${this.#path}.json`, `${JSON.stringify(noted)}\n`);
  }

  #makeFolder(): void {
    if (!this.#isFolderMade) {
      makePrivateFolder(this.#folder);
      this.#isFolderMade = true;
    }
  }
}

/** BDFs of the PFs that are prepared now. */
export function preparedPfs(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .map((name) => name.slice(0, -'.json'.length))
    .filter((pf) => new HostState(folder, pf).read().prepared !== undefined);
}

/** Of a file that this program did not write: that nothing is noted. */
function parse(text: string): PfState & { readonly version?: number } {
  try {
    const state: unknown = JSON.parse(text);
    return typeof state === 'object' && state !== null ? state : {};
  } catch {
    return {};
  }
}

function readText(path: string): string {
  try {
    return readPrivateFile(path)?.trim() ?? '';
  } catch {
    return '';
  }
}
