// A trace on disk, read in the order of its events, also while a backend still writes it. Damage is passed over block by
// block and told by `problems`.

import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { TraceDescription } from '../../../protocol/trace/description.ts';
import {
  parseBlockHeader,
  parseHeader,
  readRecords,
  type TraceEvent,
} from '../../../protocol/trace/events.ts';
import { BlockHeader, FileHeader } from '../../../protocol/trace/format.ts';
import { UserError } from '../../../protocol/user-error.ts';

const OTHER_FILE = 'name a file that `serve --trace=FILE` wrote';

interface Block {
  readonly sequence: number;
  readonly place: number;
}

export class TraceFile {
  readonly description: TraceDescription;
  /** CLOCK_MONOTONIC at the trace's start, nanoseconds. */
  readonly startedMonotonic: number;
  readonly startedAt: Date;
  /** What could not be read, one sentence each. */
  readonly problems: string[] = [];
  /** What happened first was not read: the ring went around, or it was more than was asked for. */
  isWrapped = false;
  readonly #fd: number;
  readonly #blockBytes: number;
  readonly #blocks: number;
  readonly #ringOffset: number;
  readonly #mostBlocks: number;
  #next: { sequence: number; from: number } | undefined;

  /** `mostBytes`: of its newest, to be read at first. @throws UserError where nothing of it can be read. */
  constructor(path: string, { mostBytes = Number.POSITIVE_INFINITY } = {}) {
    this.#fd = openPlain(path);
    try {
      const { header, problem } = {
        header: undefined,
        ...parseHeader(this.#read(0, FileHeader.size)),
      };
      if (header === undefined) {
        throw new UserError(`${path}: ${problem}`, OTHER_FILE);
      }
      this.#blockBytes = header.blockBytes;
      this.#ringOffset = Number(header.ringOffset);
      this.#blocks = header.blocks;
      this.#mostBlocks = Math.max(1, Math.floor(mostBytes / header.blockBytes));
      this.startedMonotonic = Number(header.startedMonotonic);
      this.startedAt = new Date(Number(header.startedRealtime / 1_000_000n));
      this.description = this.#describe(path, header.descriptionBytes);
      const expected = this.#ringOffset + this.#blocks * this.#blockBytes;
      const { size } = fstatSync(this.#fd);
      if (size < expected) {
        this.problems.push(`it is cut off: ${size} of ${expected} bytes`);
      }
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /** All events, oldest first; afterwards `more` gives those that came since. */
  *events(): Generator<TraceEvent> {
    const blocks = this.#scan().slice(-this.#mostBlocks);
    const [first] = blocks;
    if (first !== undefined && first.sequence > 0) {
      this.isWrapped = true;
      yield { kind: 'gap', time: 0, function: '', isFailure: false, lost: undefined };
    }
    for (const [position, block] of blocks.entries()) {
      const { sequence } = block;
      const after = blocks[position + 1];
      if (after !== undefined && after.sequence !== sequence + 1) {
        const missing = after.sequence - sequence - 1;
        this.problems.push(`${missing} blocks after block ${sequence} cannot be read`);
      }
      const mustEndAt =
        after?.sequence === sequence + 1 ? this.#header(after.place)?.previousUsed : undefined;
      const bytes = this.#read(this.#ringOffset + block.place * this.#blockBytes, this.#blockBytes);
      const read = readRecords(bytes, { sequence, blocks: this.#blocks }, mustEndAt);
      this.#next = { sequence, from: read.end };
      yield* read.events;
      if (read.problem !== undefined) {
        this.problems.push(read.problem);
        yield {
          kind: 'gap',
          time: lastTime(read.events),
          function: '',
          isFailure: true,
          lost: undefined,
        };
      }
    }
  }

  /** What has been written since `events`, or since the last call. */
  more(): TraceEvent[] {
    const found: TraceEvent[] = [];
    for (;;) {
      const { sequence, from } = this.#next ?? { sequence: 0, from: BlockHeader.size };
      const place = sequence % this.#blocks;
      const header = this.#header(place);
      if (header !== undefined && header.sequence > sequence) {
        found.push({
          kind: 'gap',
          time: lastTime(found),
          function: '',
          isFailure: false,
          lost: undefined,
        });
        this.#next = { sequence: header.sequence, from: BlockHeader.size };
        continue;
      }
      if (header === undefined || header.sequence < sequence) {
        return found;
      }
      const bytes = this.#read(this.#ringOffset + place * this.#blockBytes, this.#blockBytes);
      const read = readRecords(bytes, { sequence, blocks: this.#blocks, from });
      found.push(...read.events);
      this.#next = { sequence, from: read.end };
      const after = this.#header((sequence + 1) % this.#blocks);
      if (after?.sequence !== sequence + 1) {
        return found;
      }
      if (after.previousUsed <= read.end || read.problem !== undefined) {
        this.#next = { sequence: sequence + 1, from: BlockHeader.size };
      }
    }
  }

  /** What tells the file from others of its file system. */
  get inode(): number {
    return fstatSync(this.#fd).ino;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #describe(path: string, bytes: number): TraceDescription {
    try {
      const text = new TextDecoder().decode(this.#read(FileHeader.size, bytes));
      const description = JSON.parse(text) as TraceDescription;
      if (typeof description.pf.config === 'string' && typeof description.vf.config === 'string') {
        return description;
      }
    } catch {
      // Said below.
    }
    throw new UserError(`${path}: its description of the device is damaged`, 'record it again');
  }

  #scan(): Block[] {
    const found: Block[] = [];
    for (let place = 0; place < this.#blocks; place++) {
      const header = this.#header(place);
      if (header !== undefined && header.sequence % this.#blocks === place) {
        found.push({ sequence: header.sequence, place });
      }
    }
    return found.sort((one, other) => one.sequence - other.sequence);
  }

  #header(place: number): ReturnType<typeof parseBlockHeader> {
    return parseBlockHeader(
      this.#read(this.#ringOffset + place * this.#blockBytes, BlockHeader.size),
    );
  }

  #read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    return bytes.subarray(0, readSync(this.#fd, bytes, 0, length, offset));
  }
}

/** A FIFO would make whoever opens it wait. */
function openPlain(path: string): number {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new UserError((error as Error).message, OTHER_FILE);
  }
  if (!fstatSync(fd).isFile()) {
    closeSync(fd);
    throw new UserError(`${path} is not a regular file`, OTHER_FILE);
  }
  return fd;
}

function lastTime(events: readonly TraceEvent[]): number {
  return events.at(-1)?.time ?? 0;
}
