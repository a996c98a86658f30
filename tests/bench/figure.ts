// What a benchmark comes out with: one number with its limit, printed as a line of JSON and as a row of a table.

/** One measured number. `limit` is the most that the requirements allow; `details` says how it came about. */
export interface Figure {
  readonly figure: string;
  readonly value: number;
  readonly unit: string;
  readonly limit?: number;
  readonly details: Readonly<Record<string, unknown>>;
}

/** The middle value; the mean of the two middle ones of an even number. Throws for none. */
export function median(values: readonly number[]): number {
  if (values.length === 0) {
    throw new RangeError('median of no values');
  }
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** One line of JSON, the newline left out. */
export function jsonLine(figure: Figure): string {
  return JSON.stringify({
    ...figure,
    ...(isWithin(figure) === undefined ? {} : { within: isWithin(figure) }),
  });
}

/** The figures as aligned text, one row each. */
export function table(figures: readonly Figure[]): string {
  const rows = figures.map((figure) => [
    figure.figure,
    `${rounded(figure.value)} ${figure.unit}`,
    figure.limit === undefined ? '' : `limit ${figure.limit} ${figure.unit}`,
    isWithin(figure) === undefined ? '' : isWithin(figure) ? 'within' : 'OVER',
  ]);
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function isWithin(figure: Figure): boolean | undefined {
  return figure.limit === undefined ? undefined : figure.value <= figure.limit;
}

/** Three significant decimals at most. */
export function rounded(value: number): number {
  return Number(value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 3));
}
