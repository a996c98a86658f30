// Doorbells in the host's memory: a host that rings many puts them there, and writes a register only where the controller
// said (by its event index) that it does not look. NVM Express 1.4, "Controller Memory Buffer" and "Doorbell Buffer
// Config command". What cannot be read or written is left alone: the registers go on working.

import type { GuestMemory } from '../kit/guest-memory.ts';
import { type Doorbell, doorbellOffset } from './doorbells.ts';

export class ShadowDoorbells {
  readonly #memory: GuestMemory;
  readonly #values: bigint;
  readonly #events: bigint;
  readonly #stride: number;
  readonly #bytes = new Uint8Array(4);
  readonly #view = new DataView(this.#bytes.buffer);

  constructor(memory: GuestMemory, values: bigint, events: bigint, stride: number) {
    this.#memory = memory;
    this.#values = values;
    this.#events = events;
    this.#stride = stride;
  }

  /** What the host rang last. */
  read(doorbell: Doorbell): number | undefined {
    const address = this.#values + BigInt(doorbellOffset(doorbell, this.#stride));
    return this.#memory.read(address, this.#bytes)
      ? this.#view.getUint32(0, true) & 0xffff
      : undefined;
  }

  /** The host is to write the register when it goes past `value`. */
  setEvent(doorbell: Doorbell, value: number): void {
    this.#put(this.#events, doorbell, value);
  }

  /** Hosts ring the admin queue by its register alone, and look here. */
  mirror(doorbell: Doorbell, value: number): void {
    this.#put(this.#values, doorbell, value);
  }

  #put(base: bigint, doorbell: Doorbell, value: number): void {
    this.#view.setUint32(0, value, true);
    this.#memory.write(base + BigInt(doorbellOffset(doorbell, this.#stride)), this.#bytes);
  }
}
