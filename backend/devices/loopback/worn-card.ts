// A loopback function that wears the profile of a real card: config space as the card showed it, written by the rules of the
// standard's tables, and BARs that keep what is written to them. It does nothing: it is there to be looked at, so that a
// recording of the card can be played again without it.

import { closeFd } from '../../../protocol/unix/libc.ts';
import { createMemfd, readAt, writeAt } from '../../../protocol/unix/memory.ts';
import type {
  DeviceFunction,
  DmaWindow,
  Done,
  FunctionShape,
} from '../../device/physical-device.ts';
import { ImageConfig, ImageLayout } from '../kit/image-config.ts';

/** What all functions of one kind have in common, the PF or each VF of a card. */
export interface WornPlan {
  readonly shape: FunctionShape;
  readonly layout: ImageLayout;
}

export function planWorn(shape: FunctionShape, kind: 'pf' | 'vf'): WornPlan {
  return { shape, layout: new ImageLayout(shape.config, kind, kind === 'pf' ? shape.bars : []) };
}

export class WornFunction implements DeviceFunction {
  readonly #shape: FunctionShape;
  readonly #config: ImageConfig;
  /** By region: made when it is first touched. */
  readonly #memory = new Map<number, number>();
  readonly #name: string;
  readonly #closed: () => void;

  /** `name` is the memory's, for whoever looks at the process from outside. `closed`: the function has gone. */
  constructor(name: string, { shape, layout }: WornPlan, closed: () => void) {
    this.#name = name;
    this.#shape = shape;
    this.#config = new ImageConfig(layout);
    this.#closed = closed;
  }

  readConfig(offset: number, length: 1 | 2 | 4): number {
    return this.#config.read(offset, length);
  }

  writeConfig(offset: number, length: 1 | 2 | 4, value: number): void {
    this.#config.write(offset, length, value);
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

  unmapAllDma(done: Done): void {
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
    this.#closed();
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
