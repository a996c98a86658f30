// BARs whose memory the endpoint maps in halves, the second half first, as Linux's pci-epf-test does. Whoever has the BAR mapped
// sees the same memory all the time, so what is in it is moved where the mapping changes.

import type { FunctionPort } from '../kit/declaration.ts';

const HALVES = 2;

/** What the driver expects to find all over a half: by it, it sees that the halves are mapped in their order. */
function signatureOf(bar: number, half: number): number {
  return 0x50 + 8 * bar + half;
}

export class BarSubranges {
  readonly #port: Pick<FunctionPort, 'readRam' | 'writeRam'>;
  readonly #sizes: ReadonlyMap<number, number>;
  readonly #mapped = new Set<number>();

  /** `sizes`: bytes of the BARs that are memory, by their indexes. */
  constructor(
    port: Pick<FunctionPort, 'readRam' | 'writeRam'>,
    sizes: ReadonlyMap<number, number>,
  ) {
    this.#port = port;
    this.#sizes = sizes;
  }

  /** False where the BAR is no memory. */
  setUp(bar: number): boolean {
    const size = this.#sizes.get(bar);
    if (size === undefined || !this.#isMemory(bar, size)) {
      return false;
    }
    this.#mapped.add(bar);
    for (let half = 0; half < HALVES; half++) {
      const bytes = new Uint8Array(size / HALVES).fill(signatureOf(bar, half));
      this.#port.writeRam(bar, half * bytes.length, bytes);
    }
    return true;
  }

  /** The BAR is mapped as a whole again. False where it was. */
  clear(bar: number): boolean {
    const size = this.#sizes.get(bar);
    if (size === undefined || !this.#mapped.delete(bar)) {
      return false;
    }
    const bytes = new Uint8Array(size);
    this.#port.readRam(bar, 0, bytes);
    const half = size / HALVES;
    this.#port.writeRam(bar, 0, bytes.subarray(half));
    this.#port.writeRam(bar, half, bytes.subarray(0, half));
    return true;
  }

  /** All are mapped as a whole. */
  reset(): void {
    this.#mapped.clear();
  }

  /** In the shape of another card (`--profile`) a BAR may have less, or not be there. */
  #isMemory(bar: number, size: number): boolean {
    try {
      this.#port.readRam(bar, 0, new Uint8Array(size));
      return true;
    } catch {
      return false;
    }
  }
}
