// Turns what happens into records and blocks (protocol/trace/format.ts). Records gather in memory until a client is about to
// be answered, or the turn of the device thread's loop is over, and reach the file in one write then: what a client has
// seen the answer to is in the file, whatever ends this process the next moment.

import { writeU32 } from '../../protocol/record.ts';
import {
  AccessBody,
  AnswerBody,
  BLOCK_BYTES,
  BLOCK_MAGIC,
  BlockHeader,
  checkOf,
  DmaBody,
  EventFlag,
  EventKind,
  GapBody,
  IrqsBody,
  RecordHeader,
} from '../../protocol/trace/format.ts';

/** Where blocks go: `block` counts around the ring. False: it takes no more, and the trace is over. */
export interface TraceSink {
  readonly blocks: number;
  write(block: number, at: number, bytes: Uint8Array): boolean;
}

/** An access keeps this much of its data: all of a config space. */
const MAX_DATA_BYTES = 4096;
const MAX_TEXT_BYTES = 16 * 1024;
const NANOSECONDS = 1e6;
const TWO_32 = 2 ** 32;
const HEADER = RecordHeader.size;
/** A size of 0 ends what is written of a block. */
const END_BYTES = 2;

const AT = {
  time: RecordHeader.offsetOf('time'),
  took: HEADER + AccessBody.offsetOf('took'),
  region: HEADER + AccessBody.offsetOf('region'),
  offsetHigh: HEADER + AccessBody.offsetOf('offsetHigh'),
  offset: HEADER + AccessBody.offsetOf('offset'),
  length: HEADER + AccessBody.offsetOf('length'),
  data: HEADER + AccessBody.size,
};

export class TraceRecorder {
  readonly #sink: TraceSink;
  readonly #now: () => number;
  readonly #began: number;
  readonly #buffer = new Uint8Array(BLOCK_BYTES);
  readonly #encoder = new TextEncoder();
  #sequence = 0;
  #check = 0;
  #used = 0;
  #written = 0;
  #records = 0;
  #isOver = false;
  /** Where the last access sits, for `took`; -1 once it has been written out. */
  #lastAccess = -1;

  /** `now` is milliseconds of CLOCK_MONOTONIC, with fractions. */
  constructor(sink: TraceSink, now: () => number) {
    this.#sink = sink;
    this.#now = now;
    this.#began = now();
    this.#startBlock(0);
  }

  /** It takes no more: the file did not. */
  get isOver(): boolean {
    return this.#isOver;
  }

  get records(): number {
    return this.#records;
  }

  /** Of all blocks so far, with their headers. */
  get bytes(): number {
    return this.#sequence * BLOCK_BYTES + this.#used;
  }

  /** The ring went around: what came first is gone. */
  get isWrapped(): boolean {
    return this.#sequence >= this.#sink.blocks;
  }

  /** Milliseconds by the recorder's clock. */
  now(): number {
    return this.#now();
  }

  access(
    functionNumber: number,
    isWrite: boolean,
    region: number,
    offset: number,
    data: Uint8Array,
  ): void {
    const kept = data.length > MAX_DATA_BYTES ? data.subarray(0, MAX_DATA_BYTES) : data;
    const flags =
      (isWrite ? EventFlag.write : 0) | (kept.length < data.length ? EventFlag.truncated : 0);
    const at = this.#begin(EventKind.access, functionNumber, flags, AccessBody.size + kept.length);
    if (at < 0) {
      return;
    }
    const bytes = this.#buffer;
    writeU32(bytes, at + AT.took, 0);
    writeU16(bytes, at + AT.region, region);
    writeU16(bytes, at + AT.offsetHigh, Math.floor(offset / TWO_32));
    writeU32(bytes, at + AT.offset, offset % TWO_32);
    writeU32(bytes, at + AT.length, data.length);
    if (kept.length <= 8) {
      for (let i = 0; i < kept.length; i++) {
        bytes[at + AT.data + i] = kept[i]!;
      }
    } else {
      bytes.set(kept, at + AT.data);
    }
    this.#lastAccess = at;
  }

  /** The last access was carried out after `milliseconds`. */
  took(milliseconds: number): void {
    if (this.#lastAccess >= 0) {
      const nanoseconds = Math.min(milliseconds * NANOSECONDS, TWO_32 - 1);
      writeU32(this.#buffer, this.#lastAccess + AT.took, nanoseconds);
    }
  }

  /** Something of kind `of` was answered after `milliseconds`; `errno` 0 where it was granted. */
  answer(functionNumber: number, of: number, milliseconds: number, errno: number): void {
    const flags = errno === 0 ? 0 : EventFlag.failed;
    this.#put(EventKind.answer, functionNumber, flags, AnswerBody, {
      waited: BigInt(Math.round(milliseconds * NANOSECONDS)),
      of,
      errno,
    });
  }

  dma(
    functionNumber: number,
    isMap: boolean,
    window: { address: bigint; size: bigint; flags: number; fds: number },
  ): void {
    const kind = isMap ? EventKind.dmaMap : EventKind.dmaUnmap;
    this.#put(kind, functionNumber, 0, DmaBody, { ...window, size: clampU64(window.size) });
  }

  setIrqs(
    functionNumber: number,
    request: { index: number; start: number; count: number; flags: number; fds: number },
  ): void {
    this.#put(EventKind.setIrqs, functionNumber, 0, IrqsBody, request);
  }

  /** Everything else: `detail` becomes JSON. */
  note(kind: EventKind, functionNumber: number, detail: object, isFailure = false): void {
    let text = this.#encoder.encode(JSON.stringify(detail, bigintsAsText));
    let flags = isFailure ? EventFlag.failed : 0;
    if (text.length > MAX_TEXT_BYTES) {
      text = this.#encoder.encode(JSON.stringify({ tooLong: text.length }));
      flags |= EventFlag.truncated;
    }
    const at = this.#begin(kind, functionNumber, flags, text.length);
    if (at >= 0) {
      this.#buffer.set(text, at + HEADER);
    }
  }

  /** Events are missing here; 0: nobody counted them. */
  gap(lost: number): void {
    this.#put(EventKind.gap, 0xffff, 0, GapBody, { lost: lost === 0 ? TWO_32 - 1 : lost });
  }

  /** Writes out what has gathered. */
  flush(): void {
    if (this.#written === this.#used || this.#isOver) {
      return;
    }
    const end = Math.min(this.#used + END_BYTES, BLOCK_BYTES);
    this.#buffer.fill(0, this.#used, end);
    const block = this.#sequence % this.#sink.blocks;
    const bytes = this.#buffer.subarray(this.#written, end);
    if (!this.#sink.write(block, this.#written, bytes)) {
      this.#isOver = true;
    }
    this.#written = this.#used;
    this.#lastAccess = -1;
  }

  #startBlock(previousUsed: number): void {
    BlockHeader.encode(
      { magic: BLOCK_MAGIC, previousUsed, sequence: BigInt(this.#sequence) },
      this.#buffer,
    );
    this.#check = checkOf(this.#sequence, this.#sink.blocks);
    this.#used = BlockHeader.size;
    this.#written = 0;
  }

  #put<T>(
    kind: number,
    functionNumber: number,
    flags: number,
    layout: { readonly size: number; encode(value: T, into: Uint8Array, at: number): Uint8Array },
    value: T,
  ): void {
    const at = this.#begin(kind, functionNumber, flags, layout.size);
    if (at >= 0) {
      layout.encode(value, this.#buffer, at + HEADER);
    }
  }

  /** Makes room for a record and writes its head; gives its place, or -1 where the trace is over. */
  #begin(kind: number, functionNumber: number, flags: number, bodyBytes: number): number {
    if (this.#isOver) {
      return -1;
    }
    const size = HEADER + bodyBytes;
    if (this.#used + size > BLOCK_BYTES) {
      this.flush();
      this.#sequence++;
      this.#startBlock(this.#used);
    }
    const at = this.#used;
    const bytes = this.#buffer;
    const nanoseconds = (this.#now() - this.#began) * NANOSECONDS;
    writeU16(bytes, at, size);
    bytes[at + 2] = this.#check;
    bytes[at + 3] = kind;
    writeU16(bytes, at + 4, functionNumber);
    writeU16(bytes, at + 6, flags);
    writeU32(bytes, at + AT.time, nanoseconds % TWO_32);
    writeU32(bytes, at + AT.time + 4, nanoseconds / TWO_32);
    this.#used = at + size;
    this.#records++;
    return at;
  }
}

function writeU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
}

function clampU64(value: bigint): bigint {
  return value > 0xffff_ffff_ffff_ffffn ? 0xffff_ffff_ffff_ffffn : value;
}

function bigintsAsText(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
}
