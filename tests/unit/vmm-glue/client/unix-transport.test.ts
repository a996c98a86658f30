// The unix transport on a socketpair: order and completeness when the socket is full, fds, and what closing does.

import { closeSync, fstatSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createEventFd, drainEventFd, signalEventFd } from '../../../../protocol/unix/eventfd.ts';
import { socketPair } from '../../../../protocol/unix/fd-socket.ts';
import { UnixTransport } from '../../../../vmm-glue/client/unix-transport.ts';

class Receiver {
  bytes: Uint8Array[] = [];
  readonly fds: number[] = [];
  #arrived: () => void = () => {};
  #ended: () => void = () => {};
  readonly ended = new Promise<void>((resolve) => {
    this.#ended = resolve;
  });

  start(transport: UnixTransport): void {
    transport.start({
      chunk: (bytes, fds) => {
        this.bytes.push(bytes.slice());
        this.fds.push(...fds);
        this.#arrived();
      },
      ended: () => this.#ended(),
    });
  }

  get length(): number {
    return this.bytes.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  async receive(length: number): Promise<Uint8Array> {
    while (this.length < length) {
      await new Promise<void>((resolve) => {
        this.#arrived = resolve;
      });
    }
    return Buffer.concat(this.bytes);
  }
}

function pair(): [UnixTransport, UnixTransport] {
  const [a, b] = socketPair();
  return [new UnixTransport(a), new UnixTransport(b)];
}

describe('a unix transport', () => {
  it('delivers 8 MiB in order to a peer that starts to read late', async () => {
    const [near, far] = pair();
    const message = Uint8Array.from({ length: 64 * 1024 }, (_, i) => i % 253);
    for (let i = 0; i < 128; i += 1) {
      message[0] = i;
      near.send(message);
    }
    const receiver = new Receiver();
    receiver.start(far);
    const all = await receiver.receive(128 * message.length);
    for (let i = 0; i < 128; i += 1) {
      expect(all[i * message.length]).toBe(i);
      expect(all[i * message.length + 1]).toBe(1);
    }
    near.close();
    far.close();
  });

  it('keeps both sides going when both send more than the sockets hold', async () => {
    const [near, far] = pair();
    const [nearReceiver, farReceiver] = [new Receiver(), new Receiver()];
    nearReceiver.start(near);
    farReceiver.start(far);
    const message = new Uint8Array(1024 * 1024);
    for (let i = 0; i < 4; i += 1) {
      near.send(message);
      far.send(message);
    }
    await nearReceiver.receive(4 * message.length);
    await farReceiver.receive(4 * message.length);
    near.close();
    far.close();
  });

  it('carries fds, also of a message that had to wait, after the sender closed its own', async () => {
    const [near, far] = pair();
    near.send(new Uint8Array(4 * 1024 * 1024));
    const line = createEventFd();
    near.send(Uint8Array.of(1), [line]);
    closeSync(line);
    const receiver = new Receiver();
    receiver.start(far);
    await receiver.receive(4 * 1024 * 1024 + 1);
    const [received] = receiver.fds;
    signalEventFd(received!);
    expect(drainEventFd(received!)).toBe(1n);
    closeSync(received!);
    near.close();
    far.close();
  });

  it('tells the end once the peer has closed, after what the peer sent', async () => {
    const [near, far] = pair();
    near.send(Uint8Array.of(1, 2, 3));
    near.close();
    const receiver = new Receiver();
    receiver.start(far);
    await receiver.ended;
    expect([...Buffer.concat(receiver.bytes)]).toEqual([1, 2, 3]);
  });

  it('does not throw when it sends to a peer that is gone', async () => {
    const [near, far] = pair();
    far.close();
    near.send(Uint8Array.of(1));
    near.send(Uint8Array.of(2));
    const receiver = new Receiver();
    receiver.start(near);
    await receiver.ended;
  });

  it('closes its fd and those that wait to be sent', () => {
    const [near, far] = pair();
    near.send(new Uint8Array(4 * 1024 * 1024));
    const line = createEventFd();
    near.send(Uint8Array.of(1), [line]);
    near.close();
    near.close();
    expect(() => fstatSync(line)).not.toThrow();
    closeSync(line);
    far.close();
  });
});
