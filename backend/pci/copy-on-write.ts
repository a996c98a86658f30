// Bytes that start as an image which many share: of their own from the first write on, since most of what a function shows
// nobody ever writes.

export class CopyOnWrite {
  readonly #image: Uint8Array;
  #bytes: Uint8Array;

  /** Nobody writes to `image`. */
  constructor(image: Uint8Array) {
    this.#image = image;
    this.#bytes = image;
  }

  /** To be read, now: a write or a reset puts others in their place. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** To be written, now. */
  get writable(): Uint8Array {
    if (this.#bytes === this.#image) {
      this.#bytes = this.#image.slice();
    }
    return this.#bytes;
  }

  /** They are the image's again. */
  reset(): void {
    this.#bytes = this.#image;
  }
}
