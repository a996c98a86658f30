// The DMA_MAPs of one session that were refused, as sentences for people. A client can have any number of them refused:
// the first few are kept, of the rest how many there were.

/** So many sentences are kept. */
export const MOST_SENTENCES = 16;

export class FailedMaps {
  readonly #first: string[] = [];
  #more = 0;

  /** The oldest first; a last one counts what was left out. */
  get sentences(): readonly string[] {
    const rest = `${this.#more} more DMA_MAPs were refused`;
    return this.#more === 0 ? [...this.#first] : [...this.#first, rest];
  }

  add(sentence: string): void {
    if (this.#first.length < MOST_SENTENCES) {
      this.#first.push(sentence);
    } else {
      this.#more++;
    }
  }

  clear(): void {
    this.#first.length = 0;
    this.#more = 0;
  }
}
