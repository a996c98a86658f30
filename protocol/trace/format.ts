// The trace file, version 1. A header says what was traced; a ring of equal blocks follows. A block starts with its
// number and holds whole records; the block with the highest number is the newest. A record's `check` is its block's lap
// around the ring, so that what a lap before has left is never taken for a record, and a size of 0 ends a block.

import { record, u8, u16, u32, u64 } from '../record.ts';

/** "SRIOVTRC" in memory order. */
export const TRACE_MAGIC = 0x4352_5456_4f49_5253n;
export const TRACE_VERSION = 1;
export const BLOCK_MAGIC = 0x4b43_4c42;
export const BLOCK_BYTES = 64 * 1024;
/** The ring starts here or later, at a multiple of it. */
export const ALIGNMENT = 4096;

/** The start of the file. Times in nanoseconds: of CLOCK_MONOTONIC, and since 1970. */
export const FileHeader = record(
  {
    magic: u64,
    version: u16,
    reserved: u16,
    blockBytes: u32,
    blocks: u32,
    /** Length of the description, JSON in UTF-8, that follows this header. */
    descriptionBytes: u32,
    ringOffset: u64,
    startedMonotonic: u64,
    startedRealtime: u64,
  },
  'trace header',
);

/** How every trace begins, of whatever version. */
export const TRACE_MARK = record({ magic: u64 }, 'trace mark').encode({ magic: TRACE_MAGIC });

/** `previousUsed`: how many bytes of the block before hold records, so that a reader knows where it must end. */
export const BlockHeader = record({ magic: u32, previousUsed: u32, sequence: u64 }, 'trace block');

/** The head of each record; `size` includes it, `time` is nanoseconds since the trace began. */
export const RecordHeader = record(
  { size: u16, check: u8, kind: u8, function: u16, flags: u16, time: u64 },
  'trace record',
);

/** What a record is about. Those below `note` have a layout of their own; those above carry JSON. */
export const EventKind = {
  /** A read or write of config space, or of a trapped BAR. */
  access: 1,
  /** The answer to something that had to wait. */
  answer: 2,
  dmaMap: 3,
  dmaUnmap: 4,
  setIrqs: 5,
  /** Events were lost before this one. */
  gap: 6,
  note: 16,
  /** The trace began, or ended in good order. */
  trace: 16,
  /** A client came, was told what it may, or went. */
  session: 17,
  /** A message that has no kind of its own. */
  message: 18,
  reset: 19,
  /** A BAR was handed out to be mapped: what happens there is not seen. */
  mapped: 20,
  hotplug: 21,
  /** A step of the SR-IOV machine: event, and phase before and after. */
  step: 22,
  effect: 23,
  /** Work of the host: asked for, or done. */
  host: 24,
  /** What the glue did in the VMM's monitor, by its own clock stamps. */
  glue: 25,
} as const;
export type EventKind = (typeof EventKind)[keyof typeof EventKind];

export const EventFlag = {
  write: 1,
  /** The data was longer than the record. */
  truncated: 2,
  /** It was refused. */
  failed: 4,
} as const;

/** `took` is nanoseconds until it was carried out, 0 where nobody measured; the data follows. */
export const AccessBody = record(
  { took: u32, region: u16, offsetHigh: u16, offset: u32, length: u32 },
  'traced access',
);
/** How long `of` (an EventKind) had waited for its answer; `errno` 0 where it was granted. */
export const AnswerBody = record({ waited: u64, of: u16, errno: u16 }, 'traced answer');
export const DmaBody = record({ address: u64, size: u64, flags: u32, fds: u32 }, 'traced DMA map');
export const IrqsBody = record(
  { index: u32, start: u32, count: u32, flags: u32, fds: u32 },
  'traced SET_IRQS',
);
/** How many records were lost; 0xffffffff: nobody counted. */
export const GapBody = record({ lost: u32 }, 'trace gap');

/** Numbers of functions in records. */
export const NO_FUNCTION = 0xffff;
export const PF_FUNCTION = 0;
const FIRST_VF = 1;
const FIRST_CARRIER = 0x8000;

/** The number of `pf`, `vf0`, `carrier0`, … in records. */
export function functionNumberOf(name: string): number {
  if (name === 'pf') {
    return PF_FUNCTION;
  }
  const match = /^(vf|carrier)(\d+)$/.exec(name);
  if (match === null) {
    return NO_FUNCTION;
  }
  return Number(match[2]) + (match[1] === 'vf' ? FIRST_VF : FIRST_CARRIER);
}

/** The other way round; empty for NO_FUNCTION. */
export function functionName(number: number): string {
  if (number === NO_FUNCTION) {
    return '';
  }
  if (number >= FIRST_CARRIER) {
    return `carrier${number - FIRST_CARRIER}`;
  }
  return number === PF_FUNCTION ? 'pf' : `vf${number - FIRST_VF}`;
}

/** Whether it is what has a VF mapped in a stock QEMU, and no function of the card. */
export function isCarrier(name: string): boolean {
  return name.startsWith('carrier');
}

/** Names of the kinds, for people and for filters. */
export const KIND_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(EventKind)
    .filter(([name]) => name !== 'note')
    .map(([name, kind]) => [kind, name]),
);

/** The lap of a block: never 0, and never that of the lap before. */
export function checkOf(sequence: number, blocks: number): number {
  return (Math.floor(sequence / blocks) % 255) + 1;
}
