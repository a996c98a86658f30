// The trace's file: a header, then a ring of blocks whose room was reserved when the file was made. It is written by pwrite, and
// never mapped: vmm-glue/trace/README.md says why.

import { fstatSync, readlinkSync } from 'node:fs';
import type { TraceDescription } from '../../protocol/trace/description.ts';
import {
  ALIGNMENT,
  BLOCK_BYTES,
  FileHeader,
  TRACE_MAGIC,
  TRACE_VERSION,
} from '../../protocol/trace/format.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { writeAt } from '../../protocol/unix/memory.ts';
import { monotonicNanoseconds, wallClockMilliseconds } from '../../protocol/unix/process-clock.ts';
import { UserError } from '../../protocol/user-error.ts';
import type { TraceSink } from './recorder.ts';

/** With less a ring would lose what it has just been told. */
const LEAST_BLOCKS = 2;
/** A file that was cut short grows again, with holes, when it is written to: so its length is looked at this often. */
const LOOK_MILLISECONDS = 50;
const NANOSECONDS = 1_000_000;

export class RingFile implements TraceSink {
  readonly blocks: number;
  /** Where it is; null where it has no name, as memory has none. */
  readonly path: string | null;
  readonly #fd: number;
  readonly #bytes: number;
  readonly #ringOffset: number;
  readonly #now: () => number;
  readonly #links: number;
  #looked = 0;
  /** Why it takes no more. */
  failure: string | undefined;

  /** Takes over the fd of a file as long as the trace may become. @throws UserError */
  constructor(fd: number, description: TraceDescription, now: () => number) {
    const text = new TextEncoder().encode(JSON.stringify(description));
    const { size, nlink } = fstatSync(fd);
    this.#fd = fd;
    this.#bytes = size;
    this.#links = nlink;
    this.path = nlink === 0 ? null : readlinkSync(`/proc/self/fd/${fd}`);
    this.#now = now;
    this.#ringOffset = Math.ceil((FileHeader.size + text.length) / ALIGNMENT) * ALIGNMENT;
    this.blocks = Math.floor((size - this.#ringOffset) / BLOCK_BYTES);
    if (this.blocks < LEAST_BLOCKS) {
      closeFd(fd);
      const least = this.#ringOffset + LEAST_BLOCKS * BLOCK_BYTES;
      throw new UserError(`a trace of ${size} bytes is too small`, `give it ${least} or more`);
    }
    const head = new Uint8Array(FileHeader.size + text.length);
    FileHeader.encode(
      {
        magic: TRACE_MAGIC,
        version: TRACE_VERSION,
        reserved: 0,
        blockBytes: BLOCK_BYTES,
        blocks: this.blocks,
        descriptionBytes: text.length,
        ringOffset: BigInt(this.#ringOffset),
        startedMonotonic: monotonicNanoseconds(),
        startedRealtime: BigInt(wallClockMilliseconds()) * BigInt(NANOSECONDS),
      },
      head,
    );
    head.set(text, FileHeader.size);
    this.#put(0, head);
  }

  write(block: number, at: number, bytes: Uint8Array): boolean {
    const now = this.#now();
    if (now - this.#looked > LOOK_MILLISECONDS) {
      this.#looked = now;
      this.#look();
    }
    if (this.failure === undefined) {
      this.#put(this.#ringOffset + block * BLOCK_BYTES + at, bytes);
    }
    return this.failure === undefined;
  }

  close(): void {
    closeFd(this.#fd);
  }

  #put(offset: number, bytes: Uint8Array): void {
    const written = writeAt(this.#fd, bytes, offset);
    if (written < bytes.length) {
      this.failure = written < 0 ? `errno ${-written}` : 'it was written in part';
    }
  }

  #look(): void {
    const { size, nlink } = fstatSync(this.#fd);
    if (size < this.#bytes) {
      this.failure = `it was cut to ${size} bytes`;
    } else if (nlink < this.#links) {
      this.failure = 'it was deleted';
    }
  }
}
