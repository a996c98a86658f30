// Who may connect to a socket that has a file: the file's group and mode, and what is said to whoever may not.
import { chmodSync, chownSync, constants, fstatSync, lstatSync, openSync } from 'node:fs';
import { groupLabel } from './groups.ts';
import { closeFd, ErrnoNumber } from './libc.ts';
import { onFile } from './on-file.ts';
import { SyscallError } from './syscall-error.ts';

/** Who may connect: those whom the file's mode lets write. `gid` undefined: the group of the process. */
export interface SocketAccess {
  readonly mode: number;
  readonly gid?: number | undefined;
}

/** Only the user whose process listens. */
export const OWNER_ONLY: SocketAccess = { mode: 0o600 };

const O_PATH = 0o10000000;
const { O_NOFOLLOW } = constants;

/** Gives a socket's file its group and mode. Never follows a link that took its place. @throws SyscallError with its fix */
export function grantAccess(path: string, { mode, gid }: SocketAccess): void {
  const fd = onFile('open', path, () => openSync(path, O_PATH | O_NOFOLLOW));
  try {
    if (!fstatSync(fd).isSocket()) {
      throw new SyscallError('chmod', ErrnoNumber.EPERM, path, 'another file took its place');
    }
    const file = `/proc/self/fd/${fd}`;
    if (gid !== undefined) {
      onFile('chown', path, () => chownSync(file, -1, gid), {
        EPERM: notOurGroup(gid),
      });
    }
    onFile('chmod', path, () => chmodSync(file, mode));
  } finally {
    closeFd(fd);
  }
}

/** The fix where a process may not give files to a group. */
export function notOurGroup(gid: number): string {
  return `only a member of the group ${groupLabel(gid)}, or root, can give a socket to it: add this user (usermod -aG), or choose one of its groups`;
}

/** What helps whom the kernel does not let connect; undefined where the path is what is wrong. */
export function connectFix(path: string, errno: number): string | undefined {
  if (errno !== ErrnoNumber.EACCES) {
    return undefined;
  }
  try {
    const { uid, gid, mode } = lstatSync(path);
    const octal = (mode & 0o777).toString(8).padStart(4, '0');
    return `this user may not use it, which belongs to user ${uid} and group ${groupLabel(gid)} with mode ${octal}: start the backend with --socket-group, or be that user`;
  } catch {
    return 'a folder on the way to it is closed to this user: choose a path in one that is not, or be the user who serves it';
  }
}
