// Where the namespaces of an NVMe device are: in RAM, or in a file of the user's, whole or split. On the main thread.

import { closeSync, fdatasync, fstatSync, openSync } from 'node:fs';
import { promisify } from 'node:util';
import { Errno } from '../../../protocol/errno.ts';
import { isLockedByAnother } from '../../../protocol/unix/flock.ts';
import { createMemfd } from '../../../protocol/unix/memory.ts';
import { failedCall, UserError } from '../../../protocol/user-error.ts';
import { HostError } from '../../device/physical-device.ts';
import type { KeptStorage } from '../kit/ram-device.ts';
import type { Extent } from './device.ts';
import { BLOCK_BYTES } from './storage.ts';

/** As the command line has them; sizes in bytes. */
export interface NamespaceOptions {
  /** A path, with SPLIT behind it or without. */
  readonly namespace?: string;
  readonly namespaceSize?: number;
}

const NAMESPACE_BYTES = 64 * 2 ** 20;
const SPLIT = ',split';
const ANY_WRITE = 0o222;
const syncData = promisify(fdatasync);

/** The PF's first, then each VF's. A file is locked until it is closed. @throws UserError */
export function openNamespaces(
  { namespace, namespaceSize }: NamespaceOptions,
  totalVfs: number,
): Extent[] {
  const bytes = namespaceSize ?? NAMESPACE_BYTES;
  const inRam = (count: number): Extent[] =>
    Array.from({ length: count }, (_, index) => ({
      fd: createMemfd(`nvme-namespace${index}`, bytes),
      start: 0,
      bytes,
    }));
  if (namespace === undefined) {
    return inRam(1 + totalVfs);
  }
  const isSplit = namespace.endsWith(SPLIT);
  if (isSplit && namespaceSize !== undefined) {
    throw new UserError(
      '--namespace-size is of namespaces in RAM, and with ,split all are in the file',
      'leave one of them out',
      2,
    );
  }
  const path = isSplit ? namespace.slice(0, -SPLIT.length) : namespace;
  const inFile = openFile(path, isSplit ? 1 + totalVfs : 1);
  return isSplit ? inFile : [...inFile, ...inRam(totalVfs)];
}

/** What `openNamespaces` gave, as the main thread looks after it. */
export function keptStorage(namespaces: readonly Extent[]): KeptStorage {
  return {
    async sync(index) {
      const { fd } = namespaces[index + 1]!;
      try {
        await syncData(fd);
      } catch (error) {
        const { errno = -Errno.EIO, message } = error as NodeJS.ErrnoException;
        throw new HostError('fdatasync', -errno, 'the file of --namespace', message);
      }
    },
    close() {
      for (const fd of new Set(namespaces.map((each) => each.fd))) {
        closeSync(fd);
      }
    },
  };
}

/** Equal parts of whole blocks; what is left over in the end belongs to none. */
function openFile(path: string, parts: number): Extent[] {
  let fd: number;
  try {
    fd = openSync(path, 'r+');
  } catch (error) {
    throw failedCall(
      error,
      'name a file that exists and that you may read and write: truncate -s 64M FILE makes one',
      `--namespace=${path}`,
    );
  }
  try {
    const part = Math.floor(sizeOf(fd, path) / parts / BLOCK_BYTES) * BLOCK_BYTES;
    if (part < BLOCK_BYTES) {
      throw new UserError(
        `--namespace=${path}: it has less than ${parts} blocks of ${BLOCK_BYTES} bytes`,
        `make the file as large as the disk is to be: truncate -s 64M ${path}`,
      );
    }
    return Array.from({ length: parts }, (_, index) => ({
      fd,
      start: index * part,
      bytes: part,
      isOnDisk: true,
    }));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function sizeOf(fd: number, path: string): number {
  const status = fstatSync(fd);
  if (!status.isFile()) {
    throw new UserError(`--namespace=${path}: it is not a regular file`, 'name a regular file');
  }
  // root may write to it all the same, and whoever took these rights away did not want that.
  if ((status.mode & ANY_WRITE) === 0) {
    throw new UserError(
      `--namespace=${path}: the file is write-protected, and a guest writes to its disk`,
      `copy it, or let it be written: chmod u+w ${path}`,
    );
  }
  if (isLockedByAnother(fd)) {
    throw new UserError(
      `--namespace=${path}: another backend serves this file, and two would spoil it`,
      'end the other one, or name another file',
    );
  }
  return status.size;
}
