// The SR-IOV extended capability as a guest sees it: wholly virtual, nothing of it comes from hardware.
// Keeps the standard's rules and tells, as named events, what a write means; what follows is the SR-IOV machine's.
// PCIe Base 4.0, "SR-IOV Extended Capability".
//
// Where the standard says "undefined", this capability decides:
// - NumVFs above TotalVFs: the register keeps the value (so that byte-wise writes add up), but VF Enable refuses to
//   be set with it and `numVfsRefused` is told. No event ever carries a number above TotalVFs.
// - VF Enable with NumVFs 0: the bit is set, no VF exists.
// - System Page Size with no or several bits: see `pageSizeOf`.

import {
  assertBarShapes,
  type BarShape,
  barAddress,
  barRegisterValue,
  barWriteMasks,
} from '../pci/bars.ts';
import type { ConfigOwner } from '../pci/config-space.ts';
import { type Change, RegisterBlock } from '../pci/register-block.ts';
import { maskOf } from '../pci/registers.ts';
import { ExtendedCapabilityId } from '../pci/spec/capability-ids.ts';
import { extendedHeader } from '../pci/spec/extended-header.ts';
import { SRIOV, SRIOV_BYTES, SRIOV_VERSION, VF_BAR_REGISTERS } from '../pci/spec/sriov.ts';
import { pageSizeOf, SUPPORTED_PAGE_SIZES, vfBarAddress, virtualVfBarSize } from './vf-geometry.ts';

export interface SriovShape {
  readonly totalVfs: number;
  readonly vfDeviceId: number;
  readonly firstVfOffset: number;
  readonly vfStride: number;
  /** Sizes are the host's, of one VF; memory BARs only. */
  readonly vfBars: readonly BarShape[];
  /**
   * The PF's own number means no dependency. It is the guest's, never the host's, and Linux compares it with device and
   * function (device << 3 | function) of an endpoint, but with the function alone of an integrated endpoint.
   */
  readonly functionDependencyLink: number;
  /** Whether ARI Capable Hierarchy can be written, as in a device's lowest-numbered PF; default true. */
  readonly ariCapableHierarchy?: boolean;
}

/** What a guest's write meant. `numVfs` is at most TotalVFs, and 0 where VF Enable was set without any VF. */
export type SriovEvent =
  | { readonly type: 'vfEnableSet'; readonly numVfs: number }
  | { readonly type: 'vfEnableCleared' }
  | { readonly type: 'vfMemorySpaceEnable'; readonly value: boolean }
  | { readonly type: 'vfBarsMoved' }
  | { readonly type: 'systemPageSizeSet'; readonly bytes: number }
  | { readonly type: 'numVfsRefused'; readonly value: number };

type SriovBlock = RegisterBlock<typeof SRIOV>;
type SriovChange = Change<typeof SRIOV>;

export class SriovCapability {
  readonly length = SRIOV_BYTES;
  readonly totalVfs: number;
  readonly #shape: SriovShape;
  readonly #block: SriovBlock;

  /** Throws a RangeError where the shape breaks the standard. */
  constructor(shape: SriovShape) {
    assertShape(shape);
    this.totalVfs = shape.totalVfs;
    this.#shape = shape;
    this.#block = RegisterBlock.of(SRIOV, { length: SRIOV_BYTES, reset: resetValues(shape) });
    if (shape.ariCapableHierarchy === false) {
      const ari = maskOf(SRIOV.control, 'ariCapableHierarchy');
      this.#block.setWriteMask('control', SRIOV.control.rw & ~ari);
    }
    this.#applyVfEnable();
    this.#applyPageSize();
  }

  get vfEnable(): boolean {
    return this.#block.field('control', 'vfEnable') === 1;
  }

  get vfMemorySpaceEnable(): boolean {
    return this.#block.field('control', 'vfMemorySpaceEnable') === 1;
  }

  get ariCapableHierarchy(): boolean {
    return this.#block.field('control', 'ariCapableHierarchy') === 1;
  }

  /** As the guest wrote it: at most TotalVFs while VF Enable is set, anything while it is not. */
  get numVfs(): number {
    return this.#block.get('numVfs');
  }

  /** In bytes. */
  get systemPageSize(): number {
    return pageSizeOf(this.#block.get('systemPageSize'));
  }

  /** Size in bytes of one VF's BAR as the guest sees it; throws where VFs have no such BAR. */
  vfBarSize(barIndex: number): number {
    return virtualVfBarSize(this.#vfBar(barIndex).size, this.systemPageSize);
  }

  /** The guest's address of one VF's BAR; throws where VFs have no such BAR. */
  vfBarAddress(barIndex: number, vfIndex: number): bigint {
    const shape = this.#vfBar(barIndex);
    const low = this.#block.get(VF_BAR_REGISTERS[barIndex]!);
    const high = shape.kind === 'memory64' ? this.#block.get(VF_BAR_REGISTERS[barIndex + 1]!) : 0;
    return vfBarAddress(barAddress(shape, low, high), this.vfBarSize(barIndex), vfIndex);
  }

  /** Links the next extended capability, by its offset in config space; 0 ends the chain. */
  setNextPointer(offset: number): void {
    this.#block.setField('header', 'nextPointer', offset);
  }

  /** The guest's read; `offset` counts from the capability's start. */
  read(offset: number, length: 1 | 2 | 4): number {
    return this.#block.read(offset, length);
  }

  /** The guest's write; tells what it meant, in the order in which it is to be acted on. */
  write(offset: number, length: 1 | 2 | 4, value: number): SriovEvent[] {
    const events: SriovEvent[] = [];
    let moved = false;
    for (const change of this.#block.write(offset, length, value)) {
      if (change.register === 'control') {
        events.push(...this.#controlEvents(change));
      } else if (change.register === 'systemPageSize') {
        events.push(...this.#pageSizeEvents(change));
      } else if (change.register !== 'numVfs') {
        moved ||= change.before !== change.after;
      }
    }
    if (moved) {
      events.push({ type: 'vfBarsMoved' });
    }
    return events;
  }

  /** What a reset of the PF does: VFs are gone, NumVFs, Control and VF BARs are 0, pages are 4 KiB. Tells no events. */
  reset(): void {
    const next = this.#block.field('header', 'nextPointer');
    this.#block.reset();
    this.setNextPointer(next);
    this.#applyVfEnable();
    this.#applyPageSize();
  }

  /** Places the capability at `offset` of a config space. */
  owner(offset: number, onEvents: (events: SriovEvent[]) => void): ConfigOwner {
    return {
      offset,
      length: this.length,
      read: (at, length) => this.read(at, length),
      write: (at, length, value) => {
        const events = this.write(at, length, value);
        if (events.length > 0) {
          onEvents(events);
        }
      },
    };
  }

  #vfBar(barIndex: number): BarShape {
    const shape = this.#shape.vfBars.find(({ index }) => index === barIndex);
    if (shape === undefined) {
      throw new RangeError(`VFs have no BAR ${barIndex}`);
    }
    return shape;
  }

  #controlEvents(change: SriovChange): SriovEvent[] {
    const events: SriovEvent[] = [];
    const toggled = change.before ^ change.after;
    if (toggled & maskOf(SRIOV.control, 'vfMemorySpaceEnable')) {
      events.push({ type: 'vfMemorySpaceEnable', value: this.vfMemorySpaceEnable });
    }
    if (toggled & maskOf(SRIOV.control, 'vfEnable')) {
      if (!this.vfEnable) {
        events.push({ type: 'vfEnableCleared' });
      } else if (this.numVfs > this.totalVfs) {
        this.#block.setField('control', 'vfEnable', 0);
        events.push({ type: 'numVfsRefused', value: this.numVfs });
      } else {
        events.push({ type: 'vfEnableSet', numVfs: this.numVfs });
      }
      this.#applyVfEnable();
    }
    return events;
  }

  #pageSizeEvents(change: SriovChange): SriovEvent[] {
    if (pageSizeOf(change.before) === pageSizeOf(change.after)) {
      return [];
    }
    this.#applyPageSize();
    return [{ type: 'systemPageSizeSet', bytes: this.systemPageSize }];
  }

  /** NumVFs and System Page Size are read-only while VF Enable is set. */
  #applyVfEnable(): void {
    this.#block.setWriteMask('numVfs', this.vfEnable ? 0 : SRIOV.numVfs.rw);
    this.#block.setWriteMask('systemPageSize', this.vfEnable ? 0 : SUPPORTED_PAGE_SIZES);
  }

  /** VF BARs grow to the page size: address bits below it become read-only 0. */
  #applyPageSize(): void {
    const masks = new Array<number>(VF_BAR_REGISTERS.length).fill(0);
    const typeBits = new Array<number>(VF_BAR_REGISTERS.length).fill(0);
    for (const shape of this.#shape.vfBars) {
      const size = virtualVfBarSize(shape.size, this.systemPageSize);
      const { low, high } = barWriteMasks({ ...shape, size });
      masks[shape.index] = low;
      typeBits[shape.index] = barRegisterValue(shape);
      if (shape.kind === 'memory64') {
        masks[shape.index + 1] = high;
      }
    }
    for (const [index, register] of VF_BAR_REGISTERS.entries()) {
      const address = this.#block.get(register) & masks[index]!;
      this.#block.set(register, (address | typeBits[index]!) >>> 0);
      this.#block.setWriteMask(register, masks[index]!);
    }
  }
}

function resetValues(shape: SriovShape): Partial<Record<keyof typeof SRIOV, number>> {
  return {
    header: extendedHeader(ExtendedCapabilityId.sriov, SRIOV_VERSION, 0),
    initialVfs: shape.totalVfs,
    totalVfs: shape.totalVfs,
    functionDependencyLink: shape.functionDependencyLink,
    firstVfOffset: shape.firstVfOffset,
    vfStride: shape.vfStride,
    vfDeviceId: shape.vfDeviceId,
    supportedPageSizes: SUPPORTED_PAGE_SIZES,
    systemPageSize: 1,
  };
}

function assertShape(shape: SriovShape): void {
  assertBarShapes(shape.vfBars);
  if (!Number.isInteger(shape.totalVfs) || shape.totalVfs < 0 || shape.totalVfs > 0xffff) {
    throw new RangeError(`TotalVFs ${shape.totalVfs} does not fit 16 bits; give 0 to 65535`);
  }
  const io = shape.vfBars.find(({ kind }) => kind === 'io');
  if (io !== undefined) {
    throw new RangeError(`VF BAR ${io.index}: VFs have memory BARs only`);
  }
  if (shape.totalVfs > 0 && shape.firstVfOffset === 0) {
    throw new RangeError(
      'First VF Offset is 0: VF 0 would sit on its PF; give an offset of 1 or more',
    );
  }
  if (shape.totalVfs > 1 && shape.vfStride === 0) {
    throw new RangeError(
      'VF Stride is 0: all VFs would sit at one Routing ID; give a stride of 1 or more',
    );
  }
}
