// The PF's config space from memory, for the time in which the host writes sriov_numvfs and blocks the real one (0.1 s to
// enable, 1 s to disable). Writes are kept and played afterwards. Pure. Called by VfioFunction.
import { loadUint, storeUint } from '../../../../protocol/little-endian.ts';
import { configMap } from '../../../pci/register-map.ts';

export interface ConfigWrite {
  readonly offset: number;
  readonly length: 1 | 2 | 4;
  readonly value: number;
}

export class ConfigShadow {
  readonly #image: Uint8Array;
  // What a write keeps, and what a one in it clears.
  readonly #writable: Uint8Array;
  readonly #clearedByOnes: Uint8Array;
  #writes: ConfigWrite[] = [];

  /** `image` is config space as last read; it is copied. */
  constructor(image: Uint8Array) {
    this.#image = image.slice();
    this.#writable = new Uint8Array(image.length).fill(0xff);
    this.#clearedByOnes = new Uint8Array(image.length);
    const status = configMap(image, 'pf').registers.filter(({ register }) => register.rw1c !== 0);
    for (const { offset, register } of status) {
      storeUint(this.#writable, offset, register.bytes, register.rw);
      storeUint(this.#clearedByOnes, offset, register.bytes, register.rw1c);
    }
  }

  /** Takes over what the hardware was just seen to hold. */
  observe(offset: number, bytes: Uint8Array): void {
    this.#image.set(bytes, offset);
  }

  read(offset: number, length: 1 | 2 | 4): number {
    return loadUint(this.#image, offset, length);
  }

  /** As the hardware would: a status register keeps to its table, the rest is stored. */
  write({ offset, length, value }: ConfigWrite): void {
    const writable = loadUint(this.#writable, offset, length);
    const cleared = loadUint(this.#clearedByOnes, offset, length) & value;
    const kept = this.read(offset, length) & ~writable & ~cleared;
    storeUint(this.#image, offset, length, kept | (value & writable));
  }

  /** Stores a write and keeps it for the hardware. */
  queue(write: ConfigWrite): void {
    this.write(write);
    this.#writes.push(write);
  }

  /** The writes that the hardware has not had yet, in order; they are forgotten here. */
  takeWrites(): ConfigWrite[] {
    const writes = this.#writes;
    this.#writes = [];
    return writes;
  }
}
