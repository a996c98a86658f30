// A system call that failed, as an error that says what to do about it.
import { getSystemErrorMap } from 'node:util';
import { errnoName } from '../errno.ts';
import { ExplainedError, SHORTAGE_FIXES } from '../explained-error.ts';

/** ENOSPC and ENOMEM mean other things to calls that are not about a file. */
const OF_FILES = new Set<string>(['ENOSPC', 'EDQUOT', 'ENOMEM']);
const FDS_IN_FLIGHT =
  'raise its limit on open files: as many fds may wait on sockets for those who are to take them';

/** A system call that failed: which, on what, why (`what`), and what to do about it, where that is known. `errno` is positive. */
export class SyscallError extends ExplainedError {
  override readonly name: string = 'SyscallError';
  declare readonly errno: number;
  declare readonly call: string;
  /** The errno's name, such as 'ENOENT'. */
  readonly code: string;

  constructor(call: string, errno: number, path?: string, fix?: string) {
    const [code, text] = getSystemErrorMap().get(-errno) ?? [errnoName(errno), 'refused'];
    super({ call, errno, path, what: `${text} (${code})`, fix: fix ?? fixFor(code, path) });
    this.code = code;
  }
}

function fixFor(code: string, path: string | undefined): string | undefined {
  if (code === 'ETOOMANYREFS') {
    return FDS_IN_FLIGHT;
  }
  return path === undefined && OF_FILES.has(code) ? undefined : SHORTAGE_FIXES[code];
}

/** Passes a result >= 0 through; a negative errno throws SyscallError. */
export function check(call: string, result: number, path?: string): number {
  if (result < 0) {
    throw new SyscallError(call, -result, path);
  }
  return result;
}
