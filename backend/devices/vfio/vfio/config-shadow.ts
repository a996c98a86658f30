// The PF's config space from memory, for the time in which the host writes sriov_numvfs and blocks the real one (0.1 s to
// enable, 1 s to disable). Writes are kept and played afterwards. Pure. Called by VfioFunction.
import { walkCapabilities, walkExtendedCapabilities } from '../../../pci/capability-chain.ts';
import { CapabilityId, ExtendedCapabilityId } from '../../../pci/spec/capability-ids.ts';

export interface ConfigWrite {
  readonly offset: number;
  readonly length: 1 | 2 | 4;
  readonly value: number;
}

/** Bytes that a write of ones clears, by where they sit in each capability. PCIe Base 4.0. */
const HEADER_STATUS = [0x06, 0x07];
const STATUS_BYTES: Readonly<Record<number, readonly number[]>> = {
  [CapabilityId.powerManagement]: [0x05],
  // Device, Link and Link 2 Status.
  [CapabilityId.pciExpress]: [0x0a, 0x0b, 0x12, 0x13, 0x32, 0x33],
};
/** Uncorrectable and Correctable Error Status. */
const ERROR_STATUS_BYTES = [0x04, 0x05, 0x06, 0x07, 0x10, 0x11, 0x12, 0x13];

export class ConfigShadow {
  readonly #image: Uint8Array;
  readonly #clearedByOnes: ReadonlySet<number>;
  #writes: ConfigWrite[] = [];

  /** `image` is config space as last read; it is copied. */
  constructor(image: Uint8Array) {
    this.#image = image.slice();
    this.#clearedByOnes = new Set([
      ...HEADER_STATUS,
      ...walkCapabilities(image).flatMap(({ id, offset }) =>
        (STATUS_BYTES[id] ?? []).map((byte) => offset + byte),
      ),
      ...walkExtendedCapabilities(image)
        .filter(({ id }) => id === ExtendedCapabilityId.advancedErrorReporting)
        .flatMap(({ offset }) => ERROR_STATUS_BYTES.map((byte) => offset + byte)),
    ]);
  }

  /** Takes over what the hardware was just seen to hold. */
  observe(offset: number, bytes: Uint8Array): void {
    this.#image.set(bytes, offset);
  }

  read(offset: number, length: 1 | 2 | 4): number {
    let value = 0;
    for (let i = length - 1; i >= 0; i--) {
      value = value * 256 + (this.#image[offset + i] ?? 0);
    }
    return value;
  }

  /** As the hardware would: status bits are cleared by ones, the rest is stored. */
  write({ offset, length, value }: ConfigWrite): void {
    for (let i = 0; i < length; i++) {
      const byte = Math.floor(value / 256 ** i) & 0xff;
      const at = offset + i;
      if (at >= this.#image.length) {
        return;
      }
      this.#image[at] = this.#clearedByOnes.has(at) ? this.#image[at]! & ~byte : byte;
    }
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
