// Cuts what comes on a socket into lines, whatever pieces it comes in. Pure.

export class LineReader {
  readonly #most: number;
  /** The beginning of a line whose end has not come. */
  #pieces: string[] = [];
  #length = 0;

  /** Lines have `most` characters at most. */
  constructor(most: number) {
    this.#most = most;
  }

  /** The lines that end with this piece; undefined where one is too long. */
  take(piece: string): string[] | undefined {
    const [first, ...rest] = piece.split('\n');
    this.#length += first!.length;
    if (this.#length > this.#most || rest.some((line) => line.length > this.#most)) {
      return undefined;
    }
    this.#pieces.push(first!);
    const begun = rest.pop();
    if (begun === undefined) {
      return [];
    }
    const lines = [this.#pieces.join(''), ...rest];
    this.#pieces = [begun];
    this.#length = begun.length;
    return lines;
  }
}
