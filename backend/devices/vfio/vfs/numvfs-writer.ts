// Reads and writes a PF's `sriov_numvfs` through a small process of its own (numvfs-writer-child.ts). Both may block for
// seconds, or for as long as somebody holds a VF; here that is a promise that is pending, and never a stuck thread.
import { fileURLToPath } from 'node:url';
import type { Clock } from '../../../../protocol/clock.ts';
import { Errno } from '../../../../protocol/errno.ts';
import { within } from '../../../../protocol/retry.ts';
import { HostError } from '../../../device/physical-device.ts';
import { HelperProcess } from '../helper-process.ts';
import { accessNumVfs, type Outcome } from './numvfs-attribute.ts';

export interface WriterRequest {
  readonly id: number;
  readonly path: string;
  /** What to write; left out to read. */
  readonly count?: number;
}

export type WriterAnswer = { readonly id: number } & Outcome;

/** Whoever has access to the file. */
export interface NumVfsAccess {
  /** Resolves when it takes questions: until then no answer is late. */
  readonly up: Promise<void>;
  /** Reads the number, or writes `count`. */
  ask(count?: number): Promise<Outcome>;
  close(): void;
}

/** The number of VFs of one PF, as the host has it. */
export interface NumVfs {
  /** @throws HostError ETIMEDOUT when the kernel blocks the read: somebody is disabling VFs and cannot. */
  read(): Promise<number>;
  /** Resolves with 0 or the kernel's errno. Waits as long as the kernel does. */
  write(count: number): Promise<number>;
  /** Lets the process end. */
  close(): void;
}

/** Milliseconds that a read may take: a disable that goes well takes 1 s. */
const READ_PATIENCE = 10_000;
const childPath = fileURLToPath(new URL('./numvfs-writer-child.js', import.meta.url));

/** Starts the process for the attribute at `path`. Call it before VFIO files are open. */
export function startNumVfsWriter(path: string, clock: Clock, child: string = childPath): NumVfs {
  const helper = new HelperProcess<WriterAnswer>(child, 'pipe');
  const access: NumVfsAccess = {
    up: helper.up,
    ask(count) {
      const { id, answer } = helper.request();
      const request: WriterRequest = { id, path, ...(count === undefined ? {} : { count }) };
      helper.writeLine(JSON.stringify(request));
      return answer;
    },
    close: () => helper.close(),
  };
  return new NumVfsWriter(path, access, clock);
}

/** For a process that has nothing else to do, and never holds a VF. */
export function directNumVfs(path: string, clock: Clock): NumVfs {
  const access: NumVfsAccess = {
    up: Promise.resolve(),
    ask: async (count) => accessNumVfs(path, count),
    close: () => {},
  };
  return new NumVfsWriter(path, access, clock);
}

/** A NumVfs whose file, at `path`, somebody else reads and writes. */
export class NumVfsWriter implements NumVfs {
  readonly #path: string;
  readonly #access: NumVfsAccess;
  readonly #clock: Clock;
  readonly #readPatience: number;

  constructor(path: string, access: NumVfsAccess, clock: Clock, readPatience = READ_PATIENCE) {
    this.#path = path;
    this.#access = access;
    this.#clock = clock;
    this.#readPatience = readPatience;
  }

  async read(): Promise<number> {
    const asked = this.#access.ask();
    await this.#access.up;
    const blocked = (): HostError => this.#unreadable(Errno.ETIMEDOUT);
    const answer = await within(this.#clock, this.#readPatience, asked, blocked);
    if ('value' in answer) {
      return answer.value;
    }
    throw this.#unreadable(answer.errno);
  }

  #unreadable(errno: number): HostError {
    const isBlocked = errno === Errno.ETIMEDOUT;
    return new HostError(
      'read',
      errno,
      this.#path,
      isBlocked
        ? 'the kernel blocks it: VFs are being disabled while somebody holds one'
        : 'it cannot be read',
      isBlocked ? 'end the process that holds the VF (see dmesg)' : 'see dmesg',
    );
  }

  async write(count: number): Promise<number> {
    const answer = await this.#access.ask(count);
    return 'errno' in answer ? answer.errno : 0;
  }

  close(): void {
    this.#access.close();
  }
}
