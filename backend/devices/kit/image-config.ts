// Config space as a card showed it: its bytes, each written by the rules of the standard's tables for the capabilities that
// are found in them. What no table knows is read-only.

import { loadUint, storeUint } from '../../../protocol/little-endian.ts';
import { BAR_COUNT, type BarShape, barWriteMasks } from '../../pci/bars.ts';
import { findCapability } from '../../pci/capability-chain.ts';
import type { ConfigOwner } from '../../pci/config-space.ts';
import { CopyOnWrite } from '../../pci/copy-on-write.ts';
import { powerStateAfter } from '../../pci/power-state.ts';
import { configMap } from '../../pci/register-map.ts';
import { maskOf } from '../../pci/registers.ts';
import { CapabilityId } from '../../pci/spec/capability-ids.ts';
import { BAR_REGISTERS, HEADER } from '../../pci/spec/header.ts';
import { POWER_MANAGEMENT } from '../../pci/spec/power-management.ts';

const POWER_STATE = maskOf(POWER_MANAGEMENT.controlStatus, 'powerState');

/** What all functions with this image have in common; `bars` are those whose registers keep what is written to them. */
export class ImageLayout {
  readonly image: Uint8Array;
  readonly rw: Uint8Array;
  readonly rw1c: Uint8Array;
  readonly powerManagement: number | undefined;

  constructor(image: Uint8Array, kind: 'pf' | 'vf', bars: readonly BarShape[]) {
    this.image = image;
    this.rw = new Uint8Array(image.length);
    this.rw1c = new Uint8Array(image.length);
    this.powerManagement = findCapability(image, CapabilityId.powerManagement)?.offset;
    for (const { offset, register } of configMap(image, kind).registers) {
      storeUint(this.rw, offset, register.bytes, register.rw);
      storeUint(this.rw1c, offset, register.bytes, register.rw1c);
    }
    for (const { offset, bytes, mask } of barMasks(bars)) {
      storeUint(this.rw, offset, bytes, mask);
    }
  }
}

/** The whole of a function's config space. */
export class ImageConfig implements ConfigOwner {
  readonly offset = 0;
  readonly length: number;
  readonly #layout: ImageLayout;
  readonly #value: CopyOnWrite;

  constructor(layout: ImageLayout) {
    this.length = layout.image.length;
    this.#layout = layout;
    this.#value = new CopyOnWrite(layout.image);
  }

  read(offset: number, length: 1 | 2 | 4): number {
    return loadUint(this.#value.bytes, offset, length);
  }

  write(offset: number, length: 1 | 2 | 4, value: number): void {
    const before = this.#powerState;
    const bytes = this.#value.writable;
    for (let lane = 0; lane < length; lane++) {
      const at = offset + lane;
      const byte = (value >>> (8 * lane)) & 0xff;
      const rw = this.#layout.rw[at]!;
      const cleared = byte & this.#layout.rw1c[at]!;
      bytes[at] = (bytes[at]! & ~rw & ~cleared) | (byte & rw);
    }
    this.#keepSupportedPowerState(before);
  }

  /** What the device itself sets: read-only bits, too. */
  set(offset: number, length: 1 | 2 | 4, value: number): void {
    storeUint(this.#value.writable, offset, length, value);
  }

  reset(): void {
    this.#value.reset();
  }

  get #powerState(): number {
    const at = this.#layout.powerManagement;
    return at === undefined
      ? 0
      : this.#value.bytes[at + POWER_MANAGEMENT.controlStatus.offset]! & POWER_STATE;
  }

  #keepSupportedPowerState(before: number): void {
    const at = this.#layout.powerManagement;
    const written = this.#powerState;
    if (at === undefined || written === before) {
      return;
    }
    const { capabilities, controlStatus } = POWER_MANAGEMENT;
    const bytes = this.#value.writable;
    const supported = loadUint(bytes, at + capabilities.offset, capabilities.bytes);
    const control = at + controlStatus.offset;
    bytes[control] = (bytes[control]! & ~POWER_STATE) | powerStateAfter(written, before, supported);
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
