// Where MMIO goes in the reference VM: two windows, below and above 4 GiB, filled from the bottom up. Pure.

import type { SizedBar } from './bars.ts';

const WINDOW_32 = { start: 0xc000_0000n, end: 0xfec0_0000n };
const WINDOW_64 = { start: 0x80_0000_0000n, end: 0x100_0000_0000n };

export class AddressSpace {
  #next32 = WINDOW_32.start;
  #next64 = WINDOW_64.start;

  /** An address for `count` BARs of this shape in a row, aligned to one BAR's size. Throws when the window is full. */
  take(bar: SizedBar, count = 1): bigint {
    const high = bar.is64Bit && bar.prefetchable;
    const window = high ? WINDOW_64 : WINDOW_32;
    const next = high ? this.#next64 : this.#next32;
    const address = ((next + bar.size - 1n) / bar.size) * bar.size;
    const end = address + bar.size * BigInt(count);
    if (end > window.end) {
      throw new Error(
        `MMIO window: ${count} BARs of ${bar.size} bytes do not fit below 0x${window.end.toString(16)}`,
      );
    }
    if (high) {
      this.#next64 = end;
    } else {
      this.#next32 = end;
    }
    return address;
  }
}
