// The options of `serve` for whoever wants to see what a driver does: a recording, and BARs that can't be mapped.

import { fstatSync, lstatSync, rmSync } from 'node:fs';
import { InvalidArgumentError } from 'commander';
import {
  DEFAULT_TRACE_BYTES,
  DEFAULT_TRACE_SIZE,
  parseTraceSize,
  TRACE_SIZE_RULE,
} from '../../protocol/launch/trace-size.ts';
import { TRACE_MARK } from '../../protocol/trace/format.ts';
import { createPreallocatedFile } from '../../protocol/unix/preallocated-file.ts';
import { UserError } from '../../protocol/user-error.ts';
import type { ServeOption } from './serve-options.ts';
import { type TrapName, trapNames } from './trap.ts';

export interface TraceOptions {
  readonly trace?: string;
  readonly traceSize?: number;
  readonly trap?: readonly TrapName[];
}

export const TRACE_OPTIONS: readonly ServeOption[] = [
  {
    flags: '--trace <file>',
    description: 'record what the guest’s driver and the VMM do; `trace` shows it',
  },
  {
    flags: '--trace-size <bytes>',
    description: `room for it, reserved at once; the newest is kept (default: ${DEFAULT_TRACE_SIZE})`,
    parse: traceSize,
  },
  {
    flags: '--trap <what>',
    description:
      'offer no mapping of these BARs, such as pf,vfs or bar0, so that a trace sees every access; slow',
    parse: trapNames,
  },
];

function traceSize(text: string): number {
  const size = parseTraceSize(text);
  if (size === undefined) {
    throw new InvalidArgumentError(TRACE_SIZE_RULE);
  }
  return size;
}

/** The file of a recording, ready to be handed over. */
export interface TraceFile {
  readonly fd: number;
  /** Removes it, who ever has the fd: nothing is going to be recorded. */
  discard(): void;
}

/** Makes the file that the options ask for. @throws UserError */
export function traceFileOf({ trace, traceSize }: TraceOptions): TraceFile | undefined {
  if (trace === undefined) {
    return undefined;
  }
  const fd = createPreallocatedFile(trace, traceSize ?? DEFAULT_TRACE_BYTES, TRACE_MARK);
  const { dev, ino } = fstatSync(fd);
  return {
    fd,
    discard: () => {
      const there = lstatSync(trace, { throwIfNoEntry: false });
      if (there?.dev === dev && there.ino === ino) {
        rmSync(trace);
      }
    },
  };
}

/** @throws UserError for a size of nothing */
export function refuseSizeAlone({ trace, traceSize }: TraceOptions): void {
  if (traceSize !== undefined && trace === undefined) {
    throw new UserError('--trace-size goes with --trace alone', 'give --trace=FILE as well', 2);
  }
}
