// How large a recording may become. Pure.

import { parseBytes } from './option-values.ts';

/** As a person writes it, and in bytes. */
export const DEFAULT_TRACE_SIZE = '64M';
export const DEFAULT_TRACE_BYTES = parseBytes(DEFAULT_TRACE_SIZE)!;
const LEAST_BYTES = 2 ** 20;
const MOST_BYTES = 64 * 2 ** 30;

/** For a person, where the text is none. */
export const TRACE_SIZE_RULE = 'It must be a size from 1M to 64G.';

/** Reads a size; undefined where it is none, too small or too large. */
export function parseTraceSize(text: string): number | undefined {
  const size = parseBytes(text);
  return size !== undefined && size >= LEAST_BYTES && size <= MOST_BYTES ? size : undefined;
}
