// The options of `serve` for whoever wants to see what a driver does: a recording, and BARs that can't be mapped.

import { InvalidArgumentError } from 'commander';
import {
  DEFAULT_TRACE_BYTES,
  DEFAULT_TRACE_SIZE,
  parseTraceSize,
  TRACE_SIZE_RULE,
} from '../../protocol/launch/trace-size.ts';
import type { ServeOption } from './serve-options.ts';
import { type TrapName, trapNames } from './trap.ts';

export interface TraceOptions {
  readonly trace?: string;
  readonly traceSize: number;
  readonly trap?: readonly TrapName[];
}

export const TRACE_OPTIONS: readonly ServeOption[] = [
  {
    flags: '--trace <file>',
    description: 'record what the guest’s driver and the VMM do; `trace` shows it',
  },
  {
    flags: '--trace-size <bytes>',
    description: 'room for it, reserved at once; the newest is kept',
    parse: traceSize,
    default: DEFAULT_TRACE_BYTES,
    defaultText: DEFAULT_TRACE_SIZE,
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
