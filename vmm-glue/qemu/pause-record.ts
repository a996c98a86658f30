// A file beside the QMP socket: whoever holds its lock is the one glue of that QEMU, and what it says is whether
// that glue has paused the guest. So a second glue is refused, and the successor of a killed one lets the guest go on.
import {
  closeSync,
  existsSync,
  ftruncateSync,
  readFileSync,
  realpathSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { situationOf } from '../../protocol/explained-error.ts';
import { removeLock, tryLock } from '../../protocol/unix/flock.ts';
import type { SyscallError } from '../../protocol/unix/syscall-error.ts';
import { failedCall, UserError } from '../../protocol/user-error.ts';

/** What a glue notes before it pauses the guest. */
export interface PauseNote {
  /** Of the QEMU process, as Monitor.identity gives it. */
  readonly qemu: string;
  /** What the guest's 0xCF8 port held, once it is known. */
  readonly configAddress?: number;
}

export class PauseRecord {
  readonly path: string;
  /** What the glue before this one left behind, if it was killed while the guest was paused. */
  readonly inherited: PauseNote | undefined;
  readonly #write: typeof writeSync;
  #fd: number;
  #isEmpty: boolean;

  /** Takes the lock. Throws UserError when another glue serves this QEMU, or the folder cannot be written. */
  static open(qmpPath: string, write = writeSync): PauseRecord {
    const path = `${realPath(qmpPath)}.sriov-glue`;
    let fd: number | undefined;
    try {
      fd = tryLock(path);
    } catch (error) {
      throw new UserError(
        `the lock of the glue: ${situationOf(error)}`,
        (error as SyscallError).fix ??
          'run the glue as a user who can write to the folder of the QMP socket',
      );
    }
    if (fd === undefined) {
      throw new UserError(
        `QMP socket ${qmpPath}: another glue already serves this QEMU`,
        'end that one, or give all backends to one glue with several --socket-path options',
      );
    }
    return new PauseRecord(path, fd, write);
  }

  private constructor(path: string, fd: number, write: typeof writeSync) {
    this.path = path;
    this.#write = write;
    this.#fd = fd;
    this.inherited = parse(readFileSync(fd, 'utf8'));
    this.#isEmpty = this.inherited === undefined;
  }

  /** @throws UserError where the file takes nothing, as on a full disk: the guest must not be paused then */
  write(note: PauseNote | undefined): void {
    if (this.#fd < 0) {
      return;
    }
    this.#isEmpty = note === undefined;
    // In one call, and what was longer before goes afterwards: whenever this process is killed, the first line is a note.
    const bytes = Buffer.from(note === undefined ? '' : `${JSON.stringify(note)}\n`);
    try {
      this.#write(this.#fd, bytes, 0, bytes.length, 0);
      ftruncateSync(this.#fd, bytes.length);
    } catch (error) {
      throw failedCall(error, 'make room on its file system', `the glue's note ${this.path}`);
    }
  }

  /** Lets the lock go; a note that was written stays, for the next glue. */
  close(): void {
    if (this.#fd < 0) {
      return;
    }
    if (this.#isEmpty) {
      removeLock(this.path, this.#fd);
    } else {
      closeSync(this.#fd);
    }
    this.#fd = -1;
  }
}

/** Two names of one socket give one lock; also before QEMU has made the socket. */
function realPath(path: string): string {
  try {
    return existsSync(path)
      ? realpathSync(path)
      : join(realpathSync(dirname(path)), basename(path));
  } catch (error) {
    throw new UserError(
      `QMP socket ${path}: ${situationOf(error)}`,
      'start QEMU with -qmp unix:PATH,server=on,wait=off',
    );
  }
}

function parse(text: string): PauseNote | undefined {
  try {
    const note = Object(JSON.parse(text.split('\n')[0] ?? '')) as Partial<PauseNote>;
    if (typeof note.qemu !== 'string') {
      return undefined;
    }
    return typeof note.configAddress === 'number'
      ? { qemu: note.qemu, configAddress: note.configAddress }
      : { qemu: note.qemu };
  } catch {
    return undefined;
  }
}
