// The text of `lspci -vvv -xxxx` as functions: config space from the bytes, sizes of BARs from the words. Pure; what cannot be
// read is told with its line.

import { CONFIG_BYTES, EXTENDED_CONFIG_BYTES } from '../pci/spec/header.ts';

/** A `Region N:` line: a BAR, as the kernel placed it. */
export interface LspciRegion {
  readonly index: number;
  readonly isIo: boolean;
  readonly is64Bit: boolean;
  readonly prefetchable: boolean;
  /** In bytes. */
  readonly size: number;
}

export interface LspciFunction {
  /** As it is written: `01:00.0`, with or without a domain. */
  readonly address: string;
  readonly line: number;
  readonly regions: readonly LspciRegion[];
  /** 256 or 4096 bytes. */
  readonly config: Uint8Array;
}

/** What is wrong with a text, at which line of it, counted from 1. */
export class LspciTextError extends Error {
  override readonly name = 'LspciTextError';
  readonly line: number;
  readonly reason: string;

  constructor(line: number, reason: string) {
    super(`line ${line}: ${reason}`);
    this.line = line;
    this.reason = reason;
  }
}

const FUNCTION = /^((?:[0-9a-f]{4,}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) \S/i;
const BYTES = /^([0-9a-f]{2,3}): (.*)$/i;
/** Of the function itself: those of its VFs are indented further. Some texts have spaces for tabs. */
const REGION_BEGIN = /^(?:\t| {8})Region \d/;
const REGION = /^\s+Region (\d): (?:\[virtual\] )?(Memory|I\/O ports) at (?:\S+)(.*)$/;
const SIZE = /\[size=(\d+)([KMGT]?)\]/;
const ROW = 16;
const SIZES: readonly number[] = [CONFIG_BYTES, EXTENDED_CONFIG_BYTES];
const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};
const BARS = 6;
const LONGEST_TEXT = 4 << 20;

/** A function whose text is being read. */
interface Unfinished {
  readonly address: string;
  readonly line: number;
  readonly regions: LspciRegion[];
  readonly bytes: number[];
}

/**
 * The functions of one or several texts, in order; a function may have its words in one place and its bytes in another.
 * @throws LspciTextError
 */
export function parseLspci(text: string): LspciFunction[] {
  if (text.length > LONGEST_TEXT) {
    throw new LspciTextError(1, `the text is longer than ${LONGEST_TEXT >> 20} MiB`);
  }
  const found = new Map<string, Unfinished>();
  let current: Unfinished | undefined;
  for (const [index, row] of text.split(/\r?\n/).entries()) {
    const line = index + 1;
    const [, address] = FUNCTION.exec(row) ?? [];
    const bytes = BYTES.exec(row);
    if (address !== undefined) {
      current = found.get(address) ?? { address, line, regions: [], bytes: [] };
      found.set(address, current);
    } else if (bytes !== null) {
      takeBytes(owner(current, line), bytes[1]!, bytes[2]!, line);
    } else if (REGION_BEGIN.test(row)) {
      owner(current, line).regions.push(regionFrom(row, line));
    }
  }
  return [...found.values()].map(finished);
}

function owner(current: Unfinished | undefined, line: number): Unfinished {
  if (current === undefined) {
    throw new LspciTextError(line, 'no function is named before it, as in "01:00.0 Ethernet …"');
  }
  return current;
}

function takeBytes({ bytes }: Unfinished, at: string, row: string, line: number): void {
  const pairs = row.trim().split(' ');
  if (pairs.length !== ROW || !pairs.every((pair) => /^[0-9a-f]{2}$/i.test(pair))) {
    throw new LspciTextError(line, `it is no row of ${ROW} bytes`);
  }
  if (Number.parseInt(at, 16) !== bytes.length) {
    const expected = bytes.length.toString(16).padStart(2, '0');
    throw new LspciTextError(line, `offset ${at} comes where ${expected} is to come`);
  }
  bytes.push(...pairs.map((pair) => Number.parseInt(pair, 16)));
}

function regionFrom(row: string, line: number): LspciRegion {
  const [, index = '', kind, rest = ''] = REGION.exec(row) ?? [];
  const [, digits, unit = ''] = SIZE.exec(rest) ?? [];
  const size = Number(digits) * UNITS[unit]!;
  if (kind === undefined || Number(index) >= BARS) {
    throw new LspciTextError(line, 'it is no region that is known');
  }
  if (!(size > 0) || !Number.isInteger(Math.log2(size))) {
    throw new LspciTextError(line, 'the region has no size, or one that is no power of two');
  }
  return {
    index: Number(index),
    isIo: kind !== 'Memory',
    is64Bit: rest.includes('64-bit'),
    prefetchable: /\W prefetchable/.test(rest) && !rest.includes('non-prefetchable'),
    size,
  };
}

function finished({ address, line, regions, bytes }: Unfinished): LspciFunction {
  if (bytes.length === 0) {
    throw new LspciTextError(line, `${address} has no bytes: use lspci -xxxx`);
  }
  if (!SIZES.includes(bytes.length)) {
    const what = `${address} has ${bytes.length} bytes of config space`;
    throw new LspciTextError(line, `${what}, not ${SIZES.join(' or ')}: use lspci -xxxx, as root`);
  }
  return { address, line, regions, config: Uint8Array.from(bytes) };
}
