// A loopback function that wears the profile of a real card: config space as the card showed it, written by the rules of the
// standard's tables, and BARs that keep what is written to them. It does nothing: it is there to be looked at, so that a
// recording of the card can be played again without it.

import { loadUint, storeUint } from '../../../protocol/little-endian.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { createMemfd, readAt, writeAt } from '../../../protocol/unix/memory.ts';
import type {
  DeviceFunction,
  DmaWindow,
  Done,
  FunctionShape,
} from '../../device/physical-device.ts';
import { BAR_COUNT, type BarShape, barWriteMasks } from '../../pci/bars.ts';
import { configMap } from '../../pci/register-map.ts';
import { BAR_REGISTERS, HEADER } from '../../pci/spec/header.ts';

export class WornFunction implements DeviceFunction {
  readonly #shape: FunctionShape;
  readonly #config: Uint8Array;
  readonly #rw: Uint8Array;
  readonly #rw1c: Uint8Array;
  /** By region: made when it is first touched. */
  readonly #memory = new Map<number, number>();
  readonly #name: string;

  /** `name` is the memory's, for whoever looks at the process from outside. */
  constructor(name: string, shape: FunctionShape, kind: 'pf' | 'vf') {
    this.#name = name;
    this.#shape = shape;
    this.#config = shape.config.slice();
    this.#rw = new Uint8Array(shape.config.length);
    this.#rw1c = new Uint8Array(shape.config.length);
    for (const { offset, register } of configMap(shape.config, kind).registers) {
      storeUint(this.#rw, offset, register.bytes, register.rw);
      storeUint(this.#rw1c, offset, register.bytes, register.rw1c);
    }
    for (const { offset, bytes, mask } of barMasks(kind === 'pf' ? shape.bars : [])) {
      storeUint(this.#rw, offset, bytes, mask);
    }
  }

  readConfig(offset: number, length: 1 | 2 | 4): number {
    return loadUint(this.#config, offset, length);
  }

  writeConfig(offset: number, length: 1 | 2 | 4, value: number): void {
    for (let lane = 0; lane < length; lane++) {
      const at = offset + lane;
      const byte = (value >>> (8 * lane)) & 0xff;
      const rw = this.#rw[at]!;
      const cleared = byte & this.#rw1c[at]!;
      this.#config[at] = (this.#config[at]! & ~rw & ~cleared) | (byte & rw);
    }
  }

  readRegion(region: number, offset: number, into: Uint8Array): void {
    readAt(this.#memoryOf(region), into, offset);
  }

  writeRegion(region: number, offset: number, from: Uint8Array): void {
    writeAt(this.#memoryOf(region), from, offset);
  }

  regionFile(region: number): { readonly fd: number; readonly offset: bigint } {
    return { fd: this.#memoryOf(region), offset: 0n };
  }

  setIrqs(): void {}

  mapDma(_window: DmaWindow, done: Done): void {
    done();
  }

  unmapDma(_window: DmaWindow, done: Done): void {
    done();
  }

  /** The kernel, through which the card was seen, brings config space back after a reset. */
  reset(done: Done): void {
    done();
  }

  hostBusy(): void {}

  close(): void {
    for (const fd of this.#memory.values()) {
      closeFd(fd);
    }
  }

  #memoryOf(region: number): number {
    let fd = this.#memory.get(region);
    if (fd === undefined) {
      fd = createMemfd(`${this.#name}-region${region}`, this.#shape.regions[region]!.size);
      this.#memory.set(region, fd);
    }
    return fd;
  }
}

/** Which bits of the BAR registers keep what is written: their size says so, and no table. */
function barMasks(bars: readonly BarShape[]): { offset: number; bytes: number; mask: number }[] {
  const masks = new Array<number>(BAR_COUNT).fill(0);
  for (const bar of bars) {
    const { low, high } = barWriteMasks(bar);
    masks[bar.index] = low;
    if (bar.kind === 'memory64') {
      masks[bar.index + 1] = high;
    }
  }
  const { offset, bytes } = HEADER.expansionRomBase;
  return [
    ...masks.map((mask, index) => ({ ...HEADER[BAR_REGISTERS[index]!], mask })),
    { offset, bytes, mask: 0 },
  ];
}
