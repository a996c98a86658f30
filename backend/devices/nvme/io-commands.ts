// The NVM command set over one namespace. NVM Express 1.4, "NVM Command Set". What may take long is done in steps.

import { Buffer } from 'node:buffer';
import { readU32 } from '../../../protocol/record.ts';
import type { FileDirection } from '../../device/physical-device.ts';
import { gather, type Segment, scatter, slice } from '../kit/guest-memory.ts';
import { type Command, IoOpcode } from './spec/commands.ts';
import { Status } from './spec/status.ts';
import { BLOCK_BYTES, type Storage } from './storage.ts';
import { fromHost, segmentsOf, type Transfer } from './transfer.ts';

/** NSID of the one namespace that each controller has. */
export const NAMESPACE_ID = 1;
export const ALL_NAMESPACES = 0xffff_ffff;
/** MDTS: 128 KiB, in pages of 4096 bytes as a power of two. */
export const TRANSFER_SHIFT = 5;
export const MOST_TRANSFER_BYTES = 4096 << TRANSFER_SHIFT;
/** Zeroed in one step: freeing memory pages takes its time. */
const STEP_BYTES = 1 << 20;
/** Moved in one step: each page of guest memory is a call of its own. */
export const PIECE_BYTES = 32 * 1024;
const RANGE_BYTES = 16;
/** FUA, of Dword 12: what is written is on the disk before the command completes. */
const FORCE_UNIT_ACCESS = 1 << 30;

/** A command that waits for the host's disk: `wait` is called once, and gives the status when the disk is done. */
export interface Waiting {
  wait(done: (status: Status) => void): void;
}

/** A command is over, or all that is left is to wait. */
export type Outcome = Status | Waiting;

/** A step of a command that is not over yet: called until it gives an outcome. */
export type Steps = () => Outcome | undefined;

/** What SMART counts; bytes. */
export interface IoCounts {
  bytesRead: number;
  bytesWritten: number;
  reads: number;
  writes: number;
}

export interface IoContext extends Transfer {
  readonly storage: Storage;
  readonly counts: IoCounts;
  /** Whatever is written has to be on the disk before its command completes. */
  readonly writesThrough: boolean;
}

interface Extent {
  readonly offset: number;
  readonly length: number;
}

const buffer = new Uint8Array(PIECE_BYTES);
const compared = new Uint8Array(PIECE_BYTES);

/** Carries out a command, or begins to. */
export function executeIo(command: Command, context: IoContext): Outcome | Steps {
  if (command.fused !== 0 || command.dataTransfer !== 0) {
    return Status.invalidField;
  }
  switch (command.opcode) {
    case IoOpcode.flush:
      return isNamespace(command, true) ? synced(context.storage) : Status.invalidNamespace;
    case IoOpcode.read:
    case IoOpcode.write:
    case IoOpcode.compare:
      return transferBlocks(command, context);
    case IoOpcode.writeZeroes:
      return writeZeroes(command, context);
    case IoOpcode.datasetManagement:
      return manageDataset(command, context);
    default:
      return Status.invalidOpcode;
  }
}

/** At once where nothing is to be waited for. */
function synced({ sync }: Storage): Outcome {
  return sync === undefined
    ? Status.success
    : {
        wait: (done) => sync((isOnDisk) => done(isOnDisk ? Status.success : Status.writeFault)),
      };
}

function isNamespace({ namespaceId }: Command, orAll = false): boolean {
  return namespaceId === NAMESPACE_ID || (orAll && namespaceId === ALL_NAMESPACES);
}

/** The bytes of `count` blocks from `start` on; undefined where they are not all there. */
function extentOf(start: bigint, count: number, storage: Storage): Extent | undefined {
  const blocks = BigInt(Math.floor(storage.bytes / BLOCK_BYTES));
  if (start + BigInt(count) > blocks) {
    return undefined;
  }
  return { offset: Number(start) * BLOCK_BYTES, length: count * BLOCK_BYTES };
}

/** Dwords 10 and 11 are the first block, Dword 12 bits 15:0 the number of blocks, 0's based. */
function extentOfCommand(command: Command, storage: Storage): Extent | undefined {
  const start = (BigInt(command.dword11) << 32n) | BigInt(command.dword10);
  return extentOf(start, (command.dword12 & 0xffff) + 1, storage);
}

/** By one call of the kernel where that can be; else what is large is moved piece by piece. */
function transferBlocks(command: Command, context: IoContext): Outcome | Steps {
  if (!isNamespace(command)) {
    return Status.invalidNamespace;
  }
  if (((command.dword12 & 0xffff) + 1) * BLOCK_BYTES > MOST_TRANSFER_BYTES) {
    return Status.invalidField;
  }
  const extent = extentOfCommand(command, context.storage);
  if (extent === undefined) {
    return Status.lbaOutOfRange;
  }
  const { offset, length } = extent;
  const segments = segmentsOf(command, length, context);
  if (typeof segments === 'number') {
    return segments;
  }
  count(command, length, context.counts);
  const atOnce = moveAtOnce(command, offset, segments, context);
  if (atOnce !== undefined) {
    return atOnce === Status.success ? ended(command, context) : atOnce;
  }
  const move = MOVES[command.opcode]!;
  let done = 0;
  const step = (): Outcome | undefined => {
    const bytes = Math.min(PIECE_BYTES, length - done);
    const piece = bytes === length ? segments : slice(segments, done, bytes);
    const status = move(buffer.subarray(0, bytes), offset + done, piece, context);
    done += bytes;
    if (status !== Status.success) {
      return status;
    }
    return done < length ? undefined : ended(command, context);
  };
  return length <= PIECE_BYTES ? step()! : step;
}

/** Between the namespace and guest memory without a copy here; undefined where that cannot be. */
function moveAtOnce(
  { opcode }: Command,
  offset: number,
  segments: readonly Segment[],
  { storage, memory }: IoContext,
): Status | undefined {
  const way = WAYS[opcode];
  const isMoved =
    way === undefined ? undefined : memory.moveFile?.(storage.placeOf(offset), segments, way);
  return isMoved === false ? Status.dataTransferError : isMoved && Status.success;
}

const WAYS: Readonly<Record<number, FileDirection>> = {
  [IoOpcode.read]: 'fromFile',
  [IoOpcode.write]: 'toFile',
};

/** What was written may have to be on the disk. */
function ended({ opcode, dword12 }: Command, { storage, writesThrough }: IoContext): Outcome {
  const isForced = writesThrough || (dword12 & FORCE_UNIT_ACCESS) !== 0;
  return isForced && WRITES.has(opcode) ? synced(storage) : Status.success;
}

const WRITES: ReadonlySet<number> = new Set([IoOpcode.write, IoOpcode.writeZeroes]);

function count({ opcode }: Command, length: number, counts: IoCounts): void {
  if (opcode === IoOpcode.read || opcode === IoOpcode.compare) {
    counts.reads++;
    counts.bytesRead += length;
  } else if (opcode === IoOpcode.write) {
    counts.writes++;
    counts.bytesWritten += length;
  }
}

/** Moves as many bytes as `bytes` has between the namespace at `offset` and segments of guest memory. */
type Move = (
  bytes: Uint8Array,
  offset: number,
  segments: readonly Segment[],
  context: IoContext,
) => Status;

const MOVES: Readonly<Record<number, Move>> = {
  [IoOpcode.read](bytes, offset, segments, { storage, memory }) {
    if (!storage.read(offset, bytes)) {
      return Status.unrecoveredReadError;
    }
    return scatter(memory, segments, bytes) === undefined
      ? Status.success
      : Status.dataTransferError;
  },
  [IoOpcode.write](bytes, offset, segments, { storage, memory }) {
    if (gather(memory, segments, bytes) !== undefined) {
      return Status.dataTransferError;
    }
    return storage.write(offset, bytes) ? Status.success : Status.writeFault;
  },
  [IoOpcode.compare](bytes, offset, segments, { storage, memory }) {
    if (gather(memory, segments, bytes) !== undefined) {
      return Status.dataTransferError;
    }
    const own = compared.subarray(0, bytes.length);
    if (!storage.read(offset, own)) {
      return Status.unrecoveredReadError;
    }
    return Buffer.compare(own, bytes) === 0 ? Status.success : Status.compareFailure;
  },
};

function writeZeroes(command: Command, context: IoContext): Status | Steps {
  const { storage, counts } = context;
  if (!isNamespace(command)) {
    return Status.invalidNamespace;
  }
  const extent = extentOfCommand(command, storage);
  if (extent === undefined) {
    return Status.lbaOutOfRange;
  }
  counts.writes++;
  return zeroing([extent], storage, () => ended(command, context));
}

/** Dword 10 bits 7:0 is the number of ranges, 0's based; Dword 11 bit 2, deallocate. Hints are ignored. */
function manageDataset(command: Command, context: IoContext): Status | Steps {
  if (!isNamespace(command)) {
    return Status.invalidNamespace;
  }
  const ranges = new Uint8Array(((command.dword10 & 0xff) + 1) * RANGE_BYTES);
  const status = fromHost(command, ranges, context);
  if (status !== Status.success) {
    return status;
  }
  const extents: Extent[] = [];
  for (let at = 0; at < ranges.length; at += RANGE_BYTES) {
    const start = (BigInt(readU32(ranges, at + 12)) << 32n) | BigInt(readU32(ranges, at + 8));
    const extent = extentOf(start, readU32(ranges, at + 4), context.storage);
    if (extent === undefined) {
      return Status.lbaOutOfRange;
    }
    extents.push(extent);
  }
  const deallocates = (command.dword11 & 0x4) !== 0;
  return deallocates ? zeroing(extents, context.storage, () => Status.success) : Status.success;
}

function zeroing(extents: readonly Extent[], storage: Storage, over: () => Outcome): Steps {
  let index = 0;
  let done = 0;
  return () => {
    const extent = extents[index];
    if (extent === undefined) {
      return over();
    }
    const length = Math.min(STEP_BYTES, extent.length - done);
    if (length > 0 && !storage.zero(extent.offset + done, length)) {
      return Status.writeFault;
    }
    done += length;
    if (done === extent.length) {
      index++;
      done = 0;
    }
    return index === extents.length ? over() : undefined;
  };
}
