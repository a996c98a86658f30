// Memory files and mappings. Reading and writing by fd cannot hurt this process whatever the peer does to its file;
// a mapping can (SIGBUS beyond the end of a file that shrank), so map only files that this process made or that cannot shrink.
import { constants } from 'node:buffer';
import { closeSync, fstatSync, ftruncateSync } from 'node:fs';
import { type BlockMapping, mapBlocks } from './block-mapping.ts';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from './kernel-numbers.ts';
import {
  ErrnoNumber,
  fcntl,
  memfdCreate,
  mmap,
  munmap,
  pread,
  pwrite,
  viewMemory,
} from './libc.ts';
import { check, SyscallError } from './syscall-error.ts';

const MFD_CLOEXEC = 0x1;
const MFD_ALLOW_SEALING = 0x2;
const MFD_HUGETLB = 0x4;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 0x1;
const F_SEAL_SHRINK = 0x2;
const F_SEAL_GROW = 0x4;
const F_DUPFD_CLOEXEC = 1030;
const MAP_PRIVATE = 0x2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;

/** A file's bytes in this process's memory. `bytes` reads zeros after unmapMemory. */
export interface Mapping {
  readonly address: bigint;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly length: number;
}

/**
 * A file in RAM of `bytes` zeros, close-on-exec. Its size is sealed, so that a peer that gets the fd cannot shrink it
 * under our mapping; `resizable` leaves it open. `hugePages`: of the system's default size, of which `bytes` is a multiple.
 */
export function createMemfd(
  name: string,
  bytes: number,
  options?: { resizable?: boolean; hugePages?: boolean },
): number {
  const pages = options?.hugePages === true ? MFD_HUGETLB : 0;
  const fd = check(
    'memfd_create',
    memfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | pages),
    name,
  );
  try {
    ftruncateSync(fd, bytes);
    if (options?.resizable !== true) {
      const seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW;
      check('fcntl', fcntl(fd, F_ADD_SEALS, seals), name);
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

/** Maps part of a file, shared. `offset` must be a multiple of the page size. Throws SyscallError. The fd may be closed afterwards. */
export function mapMemory(request: {
  fd: number;
  offset: number;
  length: number;
  write: boolean;
}): Mapping {
  // A longer view ends Node 20 instead of throwing.
  if (request.length > constants.MAX_LENGTH) {
    const hint = `${request.length} bytes are asked and Node takes ${constants.MAX_LENGTH}: map it in parts`;
    throw new SyscallError('mmap', ErrnoNumber.EFBIG, `fd ${request.fd}`, hint);
  }
  const protection = PROT_READ | (request.write ? PROT_WRITE : 0);
  const address = mmap(0n, request.length, protection, MAP_SHARED, request.fd, request.offset);
  return { address, bytes: viewMemory(address, request.length), length: request.length };
}

/**
 * Lets the file go at once. `bytes` stays readable (zeros) and writable (to nothing), so that a stale reference cannot
 * end the process; the addresses are given back when the last reference to it is gone, and the thread's event loop
 * turns (a thread that never lets it turn keeps them: addresses, no memory).
 */
export function unmapMemory(mapping: Mapping): void {
  if (retired.has(mapping.bytes.buffer)) {
    return;
  }
  mmap(
    mapping.address,
    mapping.length,
    PROT_READ | PROT_WRITE,
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
    -1,
    0,
  );
  retired.add(mapping.bytes.buffer);
  unreferenced.register(mapping.bytes.buffer, { address: mapping.address, length: mapping.length });
}

const retired = new WeakSet<ArrayBuffer>();
const unreferenced = new FinalizationRegistry<{ address: bigint; length: number }>((range) => {
  munmap(range.address, range.length);
});

/** pread(2): bytes (fewer, down to 0, at the end of the file) or -errno. */
export function readAt(fd: number, into: Uint8Array, offset: number): number {
  for (;;) {
    const result = pread(fd, into, into.length, offset);
    if (result !== -ErrnoNumber.EINTR) {
      return result;
    }
  }
}

/**
 * pwrite(2): bytes or -errno. Beyond the end a file grows, unless its size is sealed (-EPERM). hugetlbfs, which knows no
 * writing by fd, is written all the same, up to the file's end.
 */
export function writeAt(fd: number, from: Uint8Array, offset: number): number {
  for (;;) {
    const result = pwrite(fd, from, from.length, offset);
    if (result === -ErrnoNumber.EINVAL) {
      return writeThroughMapping(fd, from, offset);
    }
    if (result !== -ErrnoNumber.EINTR) {
      return result;
    }
  }
}

/** What is to be copied into a mapping; made with the first such write of the thread. */
let scratch = -1;

/** The kernel copies, out of a file of ours: should the peer shrink its own meanwhile, that gives EFAULT and no SIGBUS. */
function writeThroughMapping(fd: number, from: Uint8Array, offset: number): number {
  const length = Math.min(from.length, fileSize(fd) - offset);
  if (length <= 0) {
    return 0;
  }
  if (scratch < 0) {
    scratch = check('memfd_create', memfdCreate('to-huge-pages', MFD_CLOEXEC));
  }
  let mapping: BlockMapping;
  try {
    mapping = mapBlocks({ fd, offset, length, write: true });
  } catch (error) {
    if (error instanceof SyscallError) {
      return -error.errno;
    }
    throw error;
  }
  const written = pwrite(scratch, from, length, 0);
  const copied = written < 0 ? written : pread(scratch, mapping.address, written, 0);
  mapping.unmap();
  return copied;
}

/** "device:inode": equal for two fds of one file. Anonymous files (eventfds) share one. */
export function fileIdentity(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}

/** Bytes in the file. */
export function fileSize(fd: number): number {
  return fstatSync(fd).size;
}

/** A second fd, close-on-exec, of the same open file. */
export function dupFd(fd: number): number {
  return check('fcntl', fcntl(fd, F_DUPFD_CLOEXEC, 0));
}
