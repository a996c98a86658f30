// A trace in memory, for tests of what writes it and of what reads it.

import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TraceRecorder, type TraceSink } from '../../../backend/trace/recorder.ts';
import type { TraceDescription } from '../../../protocol/trace/description.ts';
import {
  ALIGNMENT,
  BLOCK_BYTES,
  FileHeader,
  TRACE_MAGIC,
  TRACE_VERSION,
} from '../../../protocol/trace/format.ts';
import { describeLoopback } from '../../fakes/loopback.ts';

const loopback = describeLoopback({ totalVfs: 4, vfBarSize: 16 * 1024, enableMilliseconds: 0 });

export const DESCRIPTION: TraceDescription = {
  device: 'loopback',
  totalVfs: 4,
  isFromStart: true,
  pf: traced(loopback.pf),
  vf: traced(loopback.vf),
};

function traced(shape: typeof loopback.pf): TraceDescription['pf'] {
  return {
    config: Buffer.from(shape.config).toString('base64'),
    regions: shape.regions.map(({ index, size }) => ({ index, size })),
    mappable: [0],
    tables: shape.barTables ?? [],
  };
}

export interface MemoryTraceOptions {
  readonly blocks?: number;
  readonly version?: number;
  readonly startedMonotonic?: bigint;
  readonly description?: TraceDescription;
}

/** A recorder whose file is an array, and whose clock is set by hand (milliseconds). */
export class MemoryTrace implements TraceSink {
  readonly blocks: number;
  readonly bytes: Uint8Array;
  readonly recorder: TraceRecorder;
  time = 0;
  readonly #ringOffset: number;

  constructor(options: MemoryTraceOptions = {}) {
    this.blocks = options.blocks ?? 4;
    const text = new TextEncoder().encode(JSON.stringify(options.description ?? DESCRIPTION));
    this.#ringOffset = Math.ceil((FileHeader.size + text.length) / ALIGNMENT) * ALIGNMENT;
    this.bytes = new Uint8Array(this.#ringOffset + this.blocks * BLOCK_BYTES);
    FileHeader.encode(
      {
        magic: TRACE_MAGIC,
        version: options.version ?? TRACE_VERSION,
        reserved: 0,
        blockBytes: BLOCK_BYTES,
        blocks: this.blocks,
        descriptionBytes: text.length,
        ringOffset: BigInt(this.#ringOffset),
        startedMonotonic: options.startedMonotonic ?? 5_000_000_000n,
        startedRealtime: 0n,
      },
      this.bytes,
    );
    this.bytes.set(text, FileHeader.size);
    this.recorder = new TraceRecorder(this, () => this.time);
  }

  write(block: number, at: number, bytes: Uint8Array): boolean {
    this.bytes.set(bytes, this.#ringOffset + block * BLOCK_BYTES + at);
    return true;
  }

  /** Writes the trace into a file of its own, `length` bytes of it, and gives the path. */
  save(length = this.bytes.length): string {
    this.recorder.flush();
    const path = join(mkdtempSync(join(tmpdir(), 'trace-')), 'trace');
    writeFileSync(path, this.bytes.subarray(0, length));
    return path;
  }
}
