// How the values of options are written that `serve` takes and launchers pass on: numbers and sizes. Pure.

const UNIT_BYTES = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 } as const;

/** A time that an option says: a day. Node's timers take 2³¹ at most, and fire at once with more; a VfUnplug's deadline 2³². */
export const LONGEST_MILLISECONDS = 24 * 60 * 60 * 1000;

/** A number without sign and fraction, from `least` to `most`; undefined where the text is none. */
export function parseWholeNumber(
  text: string,
  least = 0,
  most = Number.MAX_SAFE_INTEGER,
): number | undefined {
  const value = Number(text);
  return /^\d+$/.test(text) && value >= least && value <= most ? value : undefined;
}

/** Bytes, with an optional K, M or G in either case, such as 16384, 16K or 64m; undefined where the text is no size. */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d+)([kmg]?)$/.exec(text.toLowerCase());
  const size = Number(match?.[1]) * UNIT_BYTES[(match?.[2] ?? '') as keyof typeof UNIT_BYTES];
  return Number.isSafeInteger(size) ? size : undefined;
}
