// A log's file, which somebody may rename and have opened anew (logrotate). Appended to, so that several processes can
// share it; a symbolic link, a FIFO or a file of somebody else's is refused.
import { closeFd, write } from '../unix/libc.ts';
import { openLogFile } from '../unix/private-file.ts';

export class LogFile {
  readonly #path: string;
  #fd: number;

  /** @throws SyscallError with its fix */
  constructor(path: string) {
    this.#path = path;
    this.#fd = openLogFile(path);
  }

  /** Bytes written, or -errno: a full disk takes none. */
  write(bytes: Uint8Array): number {
    return write(this.#fd, bytes, bytes.length);
  }

  /** The file of that name, made anew where it is not there any more. @throws SyscallError: then the old one stays */
  reopen(): void {
    const fd = openLogFile(this.#path);
    closeFd(this.#fd);
    this.#fd = fd;
  }
}
