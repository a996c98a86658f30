// A pair of transports inside one process: no socket, no file descriptors, and always the same order of events.
// Each frame arrives in a microtask after it was sent. For tests that need determinism.

import type { Transport, TransportReceiver } from './transport.ts';

/** Two ends; what one sends the other receives. Closing one ends both. */
export function loopbackPair(): [LoopbackTransport, LoopbackTransport] {
  const near = new LoopbackTransport();
  const far = new LoopbackTransport();
  near.join(far);
  far.join(near);
  return [near, far];
}

/** One end of a loopback pair. */
export class LoopbackTransport implements Transport {
  readonly carriesFds = false;
  #peer: LoopbackTransport | undefined;
  #receiver: TransportReceiver | undefined;
  #inbox: Uint8Array[] = [];
  #peerHasClosed = false;
  #closed = false;
  #scheduled = false;

  /** Names the other end; loopbackPair does it. */
  join(peer: LoopbackTransport): void {
    this.#peer = peer;
  }

  start(receiver: TransportReceiver): void {
    this.#receiver = receiver;
    this.#schedule();
  }

  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    if (fds.length > 0) {
      throw new Error(
        'loopback transport: it cannot carry file descriptors; send the message without',
      );
    }
    if (!this.#closed) {
      this.#peer?.accept(bytes.slice());
    }
  }

  close(): void {
    if (!this.#closed) {
      this.#closed = true;
      this.#inbox = [];
      this.#peer?.peerClosed();
    }
  }

  /** Called by the other end: one frame for this one. */
  accept(bytes: Uint8Array): void {
    this.#inbox.push(bytes);
    this.#schedule();
  }

  /** Called by the other end when it closes; what it sent before still arrives. */
  peerClosed(): void {
    this.#peerHasClosed = true;
    this.#schedule();
  }

  #schedule(): void {
    if (!this.#scheduled && this.#receiver !== undefined && !this.#closed) {
      this.#scheduled = true;
      queueMicrotask(() => this.#deliver());
    }
  }

  #deliver(): void {
    this.#scheduled = false;
    while (!this.#closed) {
      const bytes = this.#inbox.shift();
      if (bytes === undefined) {
        break;
      }
      this.#receiver?.chunk(bytes, []);
    }
    if (this.#peerHasClosed && !this.#closed) {
      this.#closed = true;
      this.#receiver?.ended(undefined);
    }
  }
}
