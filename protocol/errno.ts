// The Linux errno numbers that may go on the wire, and the error that a peer is answered with.
// Numbers are those of Linux (asm-generic/errno-base.h and errno.h), whatever system this runs on.

import { ExplainedError, type Explanation } from './explained-error.ts';

/** Errno names and their Linux numbers. EOPNOTSUPP and EWOULDBLOCK are left out: ENOTSUP and EAGAIN are the same numbers. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  ECHILD: 10,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EPIPE: 32,
  ERANGE: 34,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ENODATA: 61,
  EPROTO: 71,
  EBADMSG: 74,
  EOVERFLOW: 75,
  ENOTSOCK: 88,
  EMSGSIZE: 90,
  ENOTSUP: 95,
  EADDRINUSE: 98,
  ENETDOWN: 100,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ESHUTDOWN: 108,
  ETOOMANYREFS: 109,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTDOWN: 112,
  EALREADY: 114,
  EINPROGRESS: 115,
  ESTALE: 116,
  ECANCELED: 125,
} as const;

export type ErrnoName = keyof typeof Errno;

const nameByNumber = new Map<number, string>(
  Object.entries(Errno).map(([name, number]) => [number, name]),
);

/** The name of a positive errno number ("EINVAL"), or "errno 999" for one that is not listed. */
export function errnoName(number: number): string {
  return nameByNumber.get(number) ?? `errno ${number}`;
}

/** The peer did something that it is told about: the session turns this into an error reply. */
export class WireError extends ExplainedError {
  override readonly name: string = 'WireError';
  /** The errno's name, such as 'EINVAL'. */
  readonly code: ErrnoName;
  /** The number that goes into the reply's header. */
  declare readonly errno: number;

  /** `about`: the command as `call`, what of it is meant as `path`, and what to do about it as `fix`, as far as they are known. */
  constructor(
    code: ErrnoName,
    what: string,
    about: Pick<Explanation, 'call' | 'path' | 'fix'> = {},
  ) {
    super({ what, errno: Errno[code], ...about });
    this.code = code;
  }
}
