// A trace on disk, read in the order of its events, also while a backend still writes it. Damage is passed over block by
// block and told by `problems`.

import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { parseDescription, type TraceDescription } from '../../../protocol/trace/description.ts';
import {
  type GapEvent,
  parseBlockHeader,
  parseHeader,
  readRecords,
  type TraceEvent,
} from '../../../protocol/trace/events.ts';
import { BlockHeader, FileHeader } from '../../../protocol/trace/format.ts';
import { failedCall, UserError } from '../../../protocol/user-error.ts';

/** Of a recording that was followed. */
const REPLACED = 'it has ended: another was begun in its file, or that was emptied';
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
  /** The header, which a recording has for as long as it is there. */
  readonly #head: Uint8Array;
  readonly #blockBytes: number;
  readonly #blocks: number;
  readonly #ringOffset: number;
  readonly #mostBlocks: number;
  #next: { sequence: number; from: number } | undefined;
  /** Of the last event that was read; nanoseconds. */
  #time: number | undefined;

  /** `mostBytes`: of its newest, to be read at first. @throws UserError where nothing of it can be read. */
  constructor(path: string, { mostBytes = Number.POSITIVE_INFINITY } = {}) {
    this.#fd = openPlain(path);
    try {
      this.#head = this.#read(0, FileHeader.size);
      const parsed = { header: undefined, ...parseHeader(this.#head) };
      const { header } = parsed;
      if (header === undefined) {
        throw new UserError(`${path}: ${parsed.problem}`, parsed.fix ?? OTHER_FILE);
      }
      this.#blockBytes = header.blockBytes;
      this.#ringOffset = Number(header.ringOffset);
      this.#blocks = header.blocks;
      this.#mostBlocks = Math.max(1, Math.floor(mostBytes / header.blockBytes));
      this.startedMonotonic = Number(header.startedMonotonic);
      this.startedAt = new Date(Number(header.startedRealtime / 1_000_000n));
      this.description = this.#describe(path, header.descriptionBytes);
      this.#noteSize();
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /** All events, oldest first; afterwards `more` gives those that came since. */
  *events(): Generator<TraceEvent> {
    const found = this.#scan();
    const blocks = found.slice(-this.#mostBlocks);
    const oldest = Math.max(0, (found.at(-1)?.sequence ?? 0) - this.#blocks + 1);
    const lost = (found[0]?.sequence ?? 0) - oldest;
    if (lost > 0) {
      this.problems.push(`${lost} blocks before block ${found[0]!.sequence} cannot be read`);
    }
    this.#time = undefined;
    this.isWrapped ||= (blocks[0]?.sequence ?? 0) > 0;
    let isMissing = this.isWrapped;
    for (const [position, block] of blocks.entries()) {
      const { sequence, place } = block;
      const after = blocks[position + 1];
      const mustEndAt =
        after?.sequence === sequence + 1 ? this.#header(after.place)?.previousUsed : undefined;
      const bytes = this.#read(this.#ringOffset + place * this.#blockBytes, this.#blockBytes);
      if (this.#header(place)?.sequence !== sequence) {
        // The backend is faster than whoever reads: it has come around to this block meanwhile.
        this.isWrapped = true;
        isMissing = true;
        continue;
      }
      const read = readRecords(bytes, { sequence, blocks: this.#blocks }, mustEndAt);
      this.#next = { sequence, from: read.end };
      if (isMissing) {
        yield this.#gapBefore(read.events, lost > 0 && position === 0);
        isMissing = false;
      }
      yield* this.#noted(read.events);
      if (read.problem !== undefined) {
        this.problems.push(read.problem);
        yield this.#gapBefore([], true);
      }
      if (after !== undefined && after.sequence !== sequence + 1) {
        // The backend may have begun it behind the look for blocks, while that went on.
        const isThere = (this.#header((sequence + 1) % this.#blocks)?.sequence ?? 0) > sequence;
        if (isThere) {
          isMissing = true;
          continue;
        }
        const missing = after.sequence - sequence - 1;
        this.problems.push(`${missing} blocks after block ${sequence} cannot be read`);
        yield this.#gapBefore([], true);
      }
    }
    if (isMissing) {
      yield this.#gapBefore([], false);
    }
  }

  /** What has been written since `events`, or since the last call; what cannot be read is told by `problems`. */
  more(): TraceEvent[] {
    const found: TraceEvent[] = [];
    if (this.isReplaced) {
      this.#problem(REPLACED);
      return found;
    }
    this.#noteSize();
    for (;;) {
      const { sequence, from } = this.#next ?? { sequence: 0, from: BlockHeader.size };
      const place = sequence % this.#blocks;
      const header = this.#header(place);
      if (header !== undefined && header.sequence > sequence) {
        found.push(this.#gapBefore([], false));
        this.#next = { sequence: header.sequence, from: BlockHeader.size };
        continue;
      }
      if (header === undefined || header.sequence < sequence) {
        return found;
      }
      // Looked at first: once there is one after it, a block does not change until the ring has gone around.
      const after = this.#header((sequence + 1) % this.#blocks);
      const isFinished = after?.sequence === sequence + 1;
      const bytes = this.#read(this.#ringOffset + place * this.#blockBytes, this.#blockBytes);
      if (this.#header(place)?.sequence !== sequence) {
        continue;
      }
      const at = { sequence, blocks: this.#blocks, from };
      const read = readRecords(bytes, at, isFinished ? after.previousUsed : undefined);
      found.push(...this.#noted(read.events));
      if (!isFinished) {
        this.#next = { sequence, from: read.end };
        return found;
      }
      if (read.problem !== undefined) {
        this.problems.push(read.problem);
        found.push(this.#gapBefore([], true));
      }
      this.#next = { sequence: sequence + 1, from: BlockHeader.size };
    }
  }

  /** The file holds this recording no longer: somebody records into it anew, or has emptied it. */
  get isReplaced(): boolean {
    return Buffer.compare(this.#head, this.#read(0, FileHeader.size)) !== 0;
  }

  /** Whether it is this file that is at `path`. */
  isAt(path: string): boolean {
    const { dev, ino } = fstatSync(this.#fd);
    const there = statSync(path, { throwIfNoEntry: false });
    return there?.dev === dev && there.ino === ino;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #noted(events: TraceEvent[]): TraceEvent[] {
    this.#time = events.at(-1)?.time ?? this.#time;
    return events;
  }

  /** Events are missing here, or the file is damaged: after all that was read, or, where nothing was, before `events`. */
  #gapBefore(events: readonly TraceEvent[], isDamage: boolean): GapEvent {
    const time = this.#time ?? events[0]?.time ?? 0;
    return { kind: 'gap', time, function: '', isFailure: isDamage, lost: undefined };
  }

  #describe(path: string, bytes: number): TraceDescription {
    const text = new TextDecoder().decode(this.#read(FileHeader.size, bytes));
    const description = parseDescription(text);
    if (description === undefined) {
      throw new UserError(`${path}: its description of the device is damaged`, 'record it again');
    }
    return description;
  }

  #noteSize(): void {
    const expected = this.#ringOffset + this.#blocks * this.#blockBytes;
    const { size } = fstatSync(this.#fd);
    if (size < expected) {
      this.#problem(`it is cut off: ${size} of ${expected} bytes`);
    }
  }

  /** Notes what cannot be read, once. */
  #problem(text: string): void {
    if (!this.problems.includes(text)) {
      this.problems.push(text);
    }
  }

  #scan(): Block[] {
    const found: Block[] = [];
    const present = Math.ceil((fstatSync(this.#fd).size - this.#ringOffset) / this.#blockBytes);
    for (let place = 0; place < Math.min(this.#blocks, present); place++) {
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
    throw failedCall(error, OTHER_FILE);
  }
  if (!fstatSync(fd).isFile()) {
    closeSync(fd);
    throw new UserError(`${path} is not a regular file`, OTHER_FILE);
  }
  return fd;
}
