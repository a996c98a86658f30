// A client's messages that cannot be answered yet, in order.

import type { Frame } from '../../protocol/vfio-user/framing.ts';
import { Header } from '../../protocol/vfio-user/messages.ts';

/** As many bytes may wait before no more are received. */
const MANY_BYTES = 256 * 1024;
/** What an fd that waits counts: there are fewer of them than of bytes. */
const BYTES_PER_FD = 4096;

export class WaitingMessages {
  readonly #frames: Frame[] = [];
  #bytes = 0;

  get isEmpty(): boolean {
    return this.#frames.length === 0;
  }

  get areMany(): boolean {
    return this.#bytes > MANY_BYTES;
  }

  /** Copies the body, which mostly lies in a buffer that is used again. */
  push(frame: Frame): void {
    this.#frames.push({ ...frame, body: frame.body.slice() });
    this.#bytes += bytesOf(frame);
  }

  shift(): Frame | undefined {
    const frame = this.#frames.shift();
    if (frame !== undefined) {
      this.#bytes -= bytesOf(frame);
    }
    return frame;
  }
}

function bytesOf({ body, fds }: Frame): number {
  return Header.size + body.length + fds.length * BYTES_PER_FD;
}
