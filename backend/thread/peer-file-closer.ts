// Closes files of peers that may never let go, on a thread of libuv's pool. One at a time: a file that hangs keeps one
// thread of the pool and no more; those behind it stay open until it answers.

import { close } from 'node:fs';

export class PeerFileCloser {
  readonly #waiting: number[] = [];
  #isClosing = false;

  /** Takes the fd over. */
  close(fd: number): void {
    this.#waiting.push(fd);
    if (!this.#isClosing) {
      this.#closeNext();
    }
  }

  #closeNext(): void {
    const fd = this.#waiting.shift();
    this.#isClosing = fd !== undefined;
    if (fd !== undefined) {
      // Whether closing failed changes nothing: the fd is gone.
      close(fd, () => this.#closeNext());
    }
  }
}
