// A session's connection that keeps what is sent, and is as slow as a test wants it.

import type { Connection } from '../../backend/server/connection.ts';
import { MAX_MESSAGE_BYTES } from '../../backend/server/limits.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { type Frame, FrameAssembler } from '../../protocol/vfio-user/framing.ts';

export type SentFrame = Pick<
  Frame,
  'id' | 'command' | 'flags' | 'error' | 'isReply' | 'noReply'
> & {
  readonly body: Uint8Array;
  readonly fds: readonly number[];
};

export class RecordingConnection implements Connection {
  carriesFds = true;
  readonly outgoing = new Uint8Array(MAX_MESSAGE_BYTES);
  congested = false;
  isHeld = false;
  /** Whether it is to be resumed in the next turn. */
  isCalledLater = false;
  isClosed = false;
  readonly sent: SentFrame[] = [];
  readonly #assembler = new FrameAssembler({ maxMessageBytes: 2 * MAX_MESSAGE_BYTES, maxFds: 64 });

  flush(length: number, fds: readonly number[] = []): void {
    this.#assembler.push(this.outgoing.subarray(0, length), [], (frame) => {
      this.sent.push({ ...frame, body: frame.body.slice(), fds: [...fds] });
    });
  }

  later(): void {
    this.isCalledLater = true;
  }

  hold(held: boolean): void {
    this.isHeld = held;
  }

  discard(fd: number): void {
    closeFd(fd);
  }

  close(): void {
    this.isClosed = true;
  }

  /** What was sent since this was asked last. */
  takeSent(): SentFrame[] {
    return this.sent.splice(0);
  }
}
