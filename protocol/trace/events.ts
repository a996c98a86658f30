// Records back into events: the reader's half of format.ts. Pure; whatever a damaged file holds, it gives a list of events
// and says what is wrong, and never throws.

import {
  AccessBody,
  AnswerBody,
  BLOCK_MAGIC,
  BlockHeader,
  checkOf,
  DmaBody,
  EventFlag,
  EventKind,
  FileHeader,
  functionName,
  GapBody,
  IrqsBody,
  KIND_NAMES,
  RecordHeader,
  TRACE_MARK,
  TRACE_VERSION,
} from './format.ts';

interface Common {
  /** Nanoseconds since the trace began. */
  readonly time: number;
  /** `pf`, `vf0`, …; empty where it concerns the device as a whole. */
  readonly function: string;
  /** It was refused, or went wrong. */
  readonly isFailure: boolean;
}

export interface AccessEvent extends Common {
  readonly kind: 'access';
  readonly isWrite: boolean;
  readonly region: number;
  readonly offset: number;
  /** Bytes of the access; `data` has fewer where the record did not hold them all. */
  readonly length: number;
  readonly data: Uint8Array;
  /** Nanoseconds until it was carried out, 0: not measured. */
  readonly took: number;
}

export interface AnswerEvent extends Common {
  readonly kind: 'answer';
  readonly of: string;
  /** Nanoseconds. */
  readonly waited: number;
  readonly errno: number;
}

export interface DmaEvent extends Common {
  readonly kind: 'dmaMap' | 'dmaUnmap';
  readonly address: bigint;
  readonly size: bigint;
  readonly flags: number;
  readonly fds: number;
}

export interface IrqsEvent extends Common {
  readonly kind: 'setIrqs';
  readonly index: number;
  readonly start: number;
  readonly count: number;
  readonly flags: number;
  readonly fds: number;
}

export interface GapEvent extends Common {
  readonly kind: 'gap';
  /** Events that are missing; undefined: nobody counted them. */
  readonly lost: number | undefined;
}

export type NoteKind =
  | 'trace'
  | 'session'
  | 'message'
  | 'reset'
  | 'mapped'
  | 'hotplug'
  | 'step'
  | 'effect'
  | 'host'
  | 'glue';

export interface NoteEvent extends Common {
  readonly kind: NoteKind;
  readonly detail: Readonly<Record<string, unknown>>;
}

export type TraceEvent = AccessEvent | AnswerEvent | DmaEvent | IrqsEvent | GapEvent | NoteEvent;

/**
 * When a glue did what it tells of later, in nanoseconds since the trace began, at `startedMonotonic`; NaN where it does not
 * say when.
 */
export function glueTime({ detail }: NoteEvent, startedMonotonic: number): number {
  return Number(detail.at) * 1e6 - startedMonotonic;
}

/** The header of a trace; `problem` instead where the bytes are none that can be read, with its fix where that is not another file. */
export type ParsedHeader =
  | { readonly header: ReturnType<typeof FileHeader.decode>; readonly problem?: undefined }
  | { readonly problem: string; readonly fix?: string };

const MOST_DESCRIPTION_BYTES = 4 << 20;
const MOST_BLOCK_BYTES = 16 << 20;
const UNCOUNTED = 0xffff_ffff;

export function parseHeader(bytes: Uint8Array): ParsedHeader {
  if (!TRACE_MARK.every((byte, at) => byte === bytes[at])) {
    return { problem: 'it is not a trace' };
  }
  if (bytes.length < FileHeader.size) {
    return { problem: 'it is cut off in its header' };
  }
  const header = FileHeader.decode(bytes);
  if (header.version > TRACE_VERSION) {
    return {
      problem: `it has version ${header.version}, and this program reads up to ${TRACE_VERSION}`,
      fix: 'read it with the program that recorded it',
    };
  }
  const { blockBytes, blocks, descriptionBytes, ringOffset } = header;
  const isSound =
    blockBytes > BlockHeader.size &&
    blockBytes <= MOST_BLOCK_BYTES &&
    blocks > 0 &&
    descriptionBytes <= MOST_DESCRIPTION_BYTES &&
    ringOffset >= BigInt(FileHeader.size + descriptionBytes) &&
    ringOffset < 1n << 40n;
  return isSound ? { header } : { problem: 'its header makes no sense' };
}

/** Number and predecessor's end of a block; undefined where there is none. */
export function parseBlockHeader(
  bytes: Uint8Array,
): { sequence: number; previousUsed: number } | undefined {
  if (bytes.length < BlockHeader.size) {
    return undefined;
  }
  const { magic, sequence, previousUsed } = BlockHeader.decode(bytes);
  if (magic !== BLOCK_MAGIC || sequence >= 1n << 48n) {
    return undefined;
  }
  return { sequence: Number(sequence), previousUsed };
}

/** What was read of a block: up to `end`; `problem` where that is not where its records end. */
export interface ReadBlock {
  readonly events: TraceEvent[];
  readonly end: number;
  readonly problem: string | undefined;
}

/** The records of block `sequence` from byte `from` on; `mustEndAt` as the block after it says. */
export function readRecords(
  bytes: Uint8Array,
  at: { readonly sequence: number; readonly blocks: number; readonly from?: number },
  mustEndAt?: number,
): ReadBlock {
  const events: TraceEvent[] = [];
  const check = checkOf(at.sequence, at.blocks);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = at.from ?? BlockHeader.size;
  let problem: string | undefined;
  while (offset + RecordHeader.size <= bytes.length) {
    const size = view.getUint16(offset, true);
    if (size === 0 || bytes[offset + 2] !== check) {
      break;
    }
    if (size < RecordHeader.size || offset + size > bytes.length) {
      problem = `a record of ${size} bytes at ${offset} of block ${at.sequence}`;
      break;
    }
    const event = readRecord(bytes, view, offset, size);
    if (event === undefined) {
      problem ??= `a record that cannot be read at ${offset} of block ${at.sequence}`;
    } else {
      events.push(event);
    }
    offset += size;
  }
  if (mustEndAt !== undefined && mustEndAt !== offset) {
    problem ??= `block ${at.sequence} ends at ${offset} and not at ${mustEndAt}`;
  }
  return { events, end: offset, problem };
}

function readRecord(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  size: number,
): TraceEvent | undefined {
  const kind = bytes[at + 3]!;
  const flags = view.getUint16(at + 6, true);
  const common: Common = {
    time: view.getUint32(at + 12, true) * 2 ** 32 + view.getUint32(at + 8, true),
    function: functionName(view.getUint16(at + 4, true)),
    isFailure: (flags & EventFlag.failed) !== 0,
  };
  const body = at + RecordHeader.size;
  const room = size - RecordHeader.size;
  switch (kind) {
    case EventKind.access:
      return room < AccessBody.size
        ? undefined
        : accessOf(bytes, view, body, at + size, flags, common);
    case EventKind.answer: {
      if (room < AnswerBody.size) {
        return undefined;
      }
      const { waited, of, errno } = AnswerBody.decode(bytes, body);
      const name = KIND_NAMES.get(of) ?? 'message';
      return { kind: 'answer', ...common, of: name, waited: Number(waited), errno };
    }
    case EventKind.dmaMap:
    case EventKind.dmaUnmap: {
      if (room < DmaBody.size) {
        return undefined;
      }
      const name = kind === EventKind.dmaMap ? 'dmaMap' : 'dmaUnmap';
      return { kind: name, ...common, ...DmaBody.decode(bytes, body) };
    }
    case EventKind.setIrqs:
      return room < IrqsBody.size
        ? undefined
        : { kind: 'setIrqs', ...common, ...IrqsBody.decode(bytes, body) };
    case EventKind.gap: {
      if (room < GapBody.size) {
        return undefined;
      }
      const { lost } = GapBody.decode(bytes, body);
      return { kind: 'gap', ...common, lost: lost === UNCOUNTED ? undefined : lost };
    }
    default:
      return noteOf(kind, bytes.subarray(body, at + size), common);
  }
}

function accessOf(
  bytes: Uint8Array,
  view: DataView,
  body: number,
  end: number,
  flags: number,
  common: Common,
): AccessEvent {
  return {
    kind: 'access',
    ...common,
    isWrite: (flags & EventFlag.write) !== 0,
    took: view.getUint32(body, true),
    region: view.getUint16(body + 4, true),
    offset: view.getUint16(body + 6, true) * 2 ** 32 + view.getUint32(body + 8, true),
    length: view.getUint32(body + 12, true),
    data: bytes.slice(body + AccessBody.size, end),
  };
}

function noteOf(kind: number, text: Uint8Array, common: Common): NoteEvent | undefined {
  const name = KIND_NAMES.get(kind);
  if (name === undefined || kind < EventKind.note) {
    return undefined;
  }
  try {
    const detail: unknown = JSON.parse(new TextDecoder().decode(text));
    return typeof detail === 'object' && detail !== null && !Array.isArray(detail)
      ? { kind: name as NoteKind, ...common, detail: detail as Record<string, unknown> }
      : undefined;
  } catch {
    return undefined;
  }
}
