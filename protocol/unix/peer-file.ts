// What kind of file a peer's fd is, found out without asking the file: one of a file system of the peer's own (FUSE) may
// never answer, and then not even fstat, fstatfs or close come back. Only what the kernel knows by itself is looked at.

import { fstatSync, readFileSync, readlinkSync } from 'node:fs';
import { closeFd, fcntl } from './libc.ts';

/** `memory`: memfd, tmpfs or hugetlbfs; `disk`: a regular file of a plain file system that is mounted here. */
export type PeerFileKind = 'memory' | 'eventfd' | 'disk' | 'other';

const F_GET_SEALS = 1034;

/** File systems whose files answer by themselves. A peer can't mount them in a namespace that we see. */
const PLAIN_FILE_SYSTEMS: ReadonlySet<string> = new Set([
  'ext2',
  'ext3',
  'ext4',
  'xfs',
  'btrfs',
  'f2fs',
  'zfs',
  'bcachefs',
  'overlay',
]);

export function peerFileKind(fd: number): PeerFileKind {
  // Files in RAM have seals, however they came to be; nothing else does.
  if (fcntl(fd, F_GET_SEALS, 0) >= 0) {
    return 'memory';
  }
  // A path starts with a slash, so that no file can be called like this.
  if (linkOf(fd) === 'anon_inode:[eventfd]') {
    return 'eventfd';
  }
  return PLAIN_FILE_SYSTEMS.has(fileSystemOf(fd)) && fstatSync(fd).isFile() ? 'disk' : 'other';
}

/** Whether it is a file in RAM or on a local disk: one that can be read and written without waiting for the peer. */
export function isPlainFile(fd: number): boolean {
  const kind = peerFileKind(fd);
  return kind === 'memory' || kind === 'disk';
}

/** Closes a peer's fd, or hands it to `closeElsewhere` where that might never come back. */
export function closePeerFile(fd: number, closeElsewhere: (fd: number) => void): void {
  if (peerFileKind(fd) === 'other') {
    closeElsewhere(fd);
  } else {
    closeFd(fd);
  }
}

function linkOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}

/** The type of the file system that the file lies in, '' where it is not mounted in this process's namespace. */
function fileSystemOf(fd: number): string {
  try {
    const mountId = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    const line = mounts.find((each) => each.startsWith(`${mountId} `)) ?? '';
    return / - (\S+) /.exec(line)?.[1] ?? '';
  } catch {
    return '';
  }
}
