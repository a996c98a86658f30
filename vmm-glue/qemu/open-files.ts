// How many files a VM with slots needs open, and whether this process, whose limits its children have, may have them.
// Node raises the soft limit to the hard one when it starts.
import { readFileSync } from 'node:fs';
import { UserError } from '../../protocol/user-error.ts';

/** QEMU itself, its disks and network. */
const QEMU_FILES = 200;
/** A slot's socket, and its interrupts' eventfds. */
const QEMU_FILES_PER_SLOT = 8;
/** The backend's own, and the PF's. */
const BACKEND_FILES = 100;
/** A slot's listening and connected socket, its eventfds, and each window of guest memory: a dozen with OVMF. */
const BACKEND_FILES_PER_SLOT = 24;

/** The most files that either of the two processes of a VM with this many slots has open. */
export function openFilesFor(totalVfs: number): number {
  return Math.max(
    QEMU_FILES + QEMU_FILES_PER_SLOT * totalVfs,
    BACKEND_FILES + BACKEND_FILES_PER_SLOT * totalVfs,
  );
}

/** `Max open files`' hard limit, from a process's `limits`; Infinity where there is none. */
export function openFilesLimit(limits: string): number {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1];
  return hard === undefined || hard === 'unlimited' ? Number.POSITIVE_INFINITY : Number(hard);
}

/** @throws UserError where the limit is too low. */
export function checkOpenFiles(
  totalVfs: number,
  limits = readFileSync('/proc/self/limits', 'utf8'),
): void {
  const [need, limit] = [openFilesFor(totalVfs), openFilesLimit(limits)];
  if (need <= limit) {
    return;
  }
  throw new UserError(
    `${totalVfs} VFs need up to ${need} open files, and this user may have ${limit}`,
    `raise the hard limit (ulimit -Hn ${need}, LimitNOFILE=${need}), or offer fewer VFs (--total-vfs)`,
  );
}
