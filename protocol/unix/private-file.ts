// Small files that this program alone writes: locks and notes, in folders where others may have been first. None is
// opened through a symbolic link, none makes an open wait (a FIFO), and what somebody else owns or may write is refused:
// root would overwrite any file that such a link names.
import {
  constants,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { closeFd, ErrnoNumber } from './libc.ts';
import { onFile } from './on-file.ts';
import { SyscallError } from './syscall-error.ts';

const {
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  O_CREAT,
  O_APPEND,
  O_EXCL,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_DIRECTORY,
} = constants;
const WRITABLE_BY_GROUP = 0o020;
const WRITABLE_BY_ALL = 0o002;
const STICKY = 0o1000;
const ROOT = 0;

/** Opens the file for reading and writing, made where it is not there. @throws SyscallError with its fix */
export function openPrivateFile(path: string): number {
  refuseOpenFolder(path);
  return openChecked(path, O_RDWR | O_CREAT);
}

/** Opens a log for appending, made for this user alone where it is not there. @throws SyscallError with its fix */
export function openLogFile(path: string): number {
  return openChecked(path, O_WRONLY | O_CREAT | O_APPEND);
}

/** What is in the file; undefined where there is none. @throws SyscallError with its fix */
export function readPrivateFile(path: string): string | undefined {
  let fd: number;
  try {
    fd = openChecked(path, O_RDONLY);
  } catch (error) {
    if (error instanceof SyscallError && error.errno === ErrnoNumber.ENOENT) {
      return undefined;
    }
    throw error;
  }
  try {
    return readFileSync(fd, 'utf8');
  } finally {
    closeFd(fd);
  }
}

/** Writes the file anew, as a whole: whatever ends this process or the host, it is the old one or the new one. @throws SyscallError */
export function replacePrivateFile(path: string, text: string): void {
  refuseOpenFolder(path);
  const temporary = `${path}.${process.pid}.new`;
  rmSync(temporary, { force: true });
  const fd = openChecked(temporary, O_WRONLY | O_CREAT | O_EXCL);
  try {
    onOurFile('write', temporary, () => {
      writeFileSync(fd, text);
      fsyncSync(fd);
    });
    onOurFile('rename', path, () => renameSync(temporary, path));
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeFd(fd);
  }
  syncFolder(dirname(path));
}

/** Makes the folder, for this user alone, where it is not there. @throws SyscallError where it, or one above, is others' to write */
export function makePrivateFolder(path: string): void {
  onOurFile('mkdir', path, () => mkdirSync(path, { recursive: true, mode: 0o700 }));
  const folder = onOurFile('lstat', path, () => lstatSync(path));
  if (!folder.isDirectory() || folder.uid !== ownUser() || isOpenToOthers(folder)) {
    throw refusal('mkdir', path, 'it is not a folder of this user alone: remove it');
  }
  let above = dirname(onOurFile('realpath', path, () => realpathSync(path)));
  for (;;) {
    const { uid, mode, gid } = statSync(above);
    const isTrusted = uid === ROOT || uid === ownUser();
    if (!isTrusted || (isOpenToOthers({ mode, gid }) && (mode & STICKY) === 0)) {
      throw refusal('mkdir', path, `others can replace it, because they can write to ${above}`);
    }
    if (above === dirname(above)) {
      return;
    }
    above = dirname(above);
  }
}

function openChecked(path: string, flags: number): number {
  const fd = onOurFile('open', path, () => openSync(path, flags | O_NOFOLLOW | O_NONBLOCK, 0o600));
  const file = fstatSync(fd);
  const refused = whyNot(file);
  if (refused === undefined) {
    return fd;
  }
  closeFd(fd);
  throw refusal('open', path, refused);
}

function whyNot(file: Stats): string | undefined {
  if (!file.isFile()) {
    return 'it is not a plain file: remove it';
  }
  if (file.uid !== ownUser()) {
    return `it is a file of the user with number ${file.uid}: remove it, or run this as that user`;
  }
  if (file.nlink > 1) {
    return 'it has another name as well, a hard link: remove it';
  }
  return isOpenToOthers(file) ? 'others can write to it: remove it, or chmod go-w' : undefined;
}

/** A folder where others can put a file in another's place. In a sticky one, such as /tmp, they cannot. */
function refuseOpenFolder(path: string): void {
  const folder = dirname(path);
  const found = onOurFile('open', path, () => statSync(folder));
  if (isOpenToOthers(found) && (found.mode & STICKY) === 0) {
    throw refusal('open', path, `others can write to its folder: chmod go-w ${folder}`);
  }
}

/** A user's own group is often that user's alone, and their folders its to write. */
function isOpenToOthers({ mode, gid }: { mode: number; gid: number }): boolean {
  const isOwnGroup = gid === process.getegid?.();
  return (mode & WRITABLE_BY_ALL) !== 0 || ((mode & WRITABLE_BY_GROUP) !== 0 && !isOwnGroup);
}

function ownUser(): number {
  return process.geteuid?.() ?? ROOT;
}

function refusal(call: string, path: string, fix: string): SyscallError {
  return new SyscallError(call, ErrnoNumber.EPERM, path, fix);
}

/** The new name is on the disk, too. */
function syncFolder(path: string): void {
  const fd = onOurFile('open', path, () => openSync(path, O_RDONLY | O_DIRECTORY));
  try {
    onOurFile('fsync', path, () => fsyncSync(fd));
  } finally {
    closeFd(fd);
  }
}

const FIXES: Readonly<Record<string, string>> = {
  ELOOP: 'a symbolic link is there: remove it',
  ENXIO: 'it is not a plain file: remove it',
  EACCES: 'this user must be able to write there',
  ENOSPC: 'make room there',
};

/** Says what helps as well. */
function onOurFile<T>(call: string, path: string, perform: () => T): T {
  return onFile(call, path, perform, FIXES);
}
