// Reads and writes a PF's `sriov_numvfs` through a small process of its own (numvfs-writer-child.ts). Both may block for
// seconds, or for as long as somebody holds a VF; here that is a promise that is pending, and never a stuck thread.
import { fileURLToPath } from 'node:url';
import type { Timer } from '../../../../protocol/clock.ts';
import { Errno } from '../../../../protocol/errno.ts';
import { processClock } from '../../../../protocol/unix/process-clock.ts';
import { HostError } from '../../../device/physical-device.ts';
import { type Ended, HelperProcess } from '../helper-process.ts';

export interface WriterRequest {
  readonly id: number;
  readonly path: string;
  /** Text to write; left out to read. */
  readonly value?: string;
}

export type WriterAnswer = { readonly id: number; readonly text: string } | Ended;

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
export function startNumVfsWriter(
  path: string,
  options: { child?: string; readPatience?: number } = {},
): NumVfs {
  const helper = new HelperProcess<WriterAnswer>(options.child ?? childPath, 'pipe');
  return new NumVfsWriter(path, helper, options.readPatience ?? READ_PATIENCE);
}

class NumVfsWriter implements NumVfs {
  readonly #path: string;
  readonly #helper: HelperProcess<WriterAnswer>;
  readonly #readPatience: number;

  constructor(path: string, helper: HelperProcess<WriterAnswer>, readPatience: number) {
    this.#path = path;
    this.#helper = helper;
    this.#readPatience = readPatience;
  }

  async read(): Promise<number> {
    let timer: Timer | undefined;
    const asked = this.#ask();
    await this.#helper.up;
    const blocked = new Promise<WriterAnswer>((resolve) => {
      timer = processClock.after(this.#readPatience, () =>
        resolve({ id: 0, errno: Errno.ETIMEDOUT }),
      );
    });
    const answer = await Promise.race([asked, blocked]);
    timer?.cancel();
    if ('text' in answer) {
      return Number(answer.text);
    }
    const isBlocked = answer.errno === Errno.ETIMEDOUT;
    throw new HostError(
      'read',
      answer.errno,
      this.#path,
      isBlocked
        ? 'the kernel blocks it: VFs are being disabled while somebody holds one'
        : 'it cannot be read',
      isBlocked ? 'end the process that holds the VF (see dmesg)' : 'see dmesg',
    );
  }

  async write(count: number): Promise<number> {
    const answer = await this.#ask(String(count));
    return 'errno' in answer ? answer.errno : 0;
  }

  close(): void {
    this.#helper.close();
  }

  #ask(value?: string): Promise<WriterAnswer> {
    const { id, answer } = this.#helper.request();
    const request: WriterRequest = {
      id,
      path: this.#path,
      ...(value === undefined ? {} : { value }),
    };
    this.#helper.writeLine(JSON.stringify(request));
    return answer;
  }
}
