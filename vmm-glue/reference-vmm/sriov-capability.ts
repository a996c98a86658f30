// The SR-IOV capability as Linux drives it: the same accesses in the same order, with the waits that the standard
// asks for. Checked access by access against a recorded Linux 6.12 in tests/unit.
// Source of the order: linux/drivers/pci/iov.c, sriov_init, sriov_enable, sriov_disable, sriov_restore_state.

import { type PlacedBar, type SizedBar, sizeBars, writeBar } from './bars.ts';
import type { ConfigAccess } from './config-access.ts';
import { Sriov, SriovBit } from './pci-offsets.ts';

/** How long software must leave VFs alone (PCIe Base 4.0, "VF Enable" and "Clearing VF Enable"). */
export const ENABLE_WAIT_MILLISECONDS = 100;
export const DISABLE_WAIT_MILLISECONDS = 1000;

export interface SriovOptions {
  /** Whether the bus has ARI forwarding on; then ARI Capable Hierarchy is set. */
  readonly ari: boolean;
  /** Passes time; a test's may return at once. */
  readonly wait: (milliseconds: number) => Promise<void>;
}

/** The smallest page that every Linux on x86 has. */
const PAGE_SIZE_4K = 0x1;
const BAR_COUNT = 6;

export class SriovCapability {
  totalVfs = 0;
  vfDeviceId = 0;
  firstVfOffset = 0;
  vfStride = 0;
  /** VFs that are enabled now. */
  numVfs = 0;
  /** One VF's BARs. */
  vfBars: readonly SizedBar[] = [];
  /** The same with the address that VF 0's has; VF i's is `size` x i further on. */
  placedBars: readonly PlacedBar[] = [];
  readonly #config: ConfigAccess;
  readonly #base: number;
  readonly #options: SriovOptions;

  constructor(config: ConfigAccess, base: number, options: SriovOptions) {
    this.#config = config;
    this.#base = base;
    this.#options = options;
  }

  /** Boot: sizes the VF BARs and tries every NumVFs. Throws where Linux ignores the capability. */
  async initialize(): Promise<void> {
    const control = await this.#read(Sriov.control, 2);
    if ((control & SriovBit.vfEnable) !== 0) {
      await this.#write(Sriov.control, 2, 0);
      await this.#options.wait(DISABLE_WAIT_MILLISECONDS);
    }
    await this.#write(Sriov.control, 2, this.#idleControl());
    this.totalVfs = await this.#read(Sriov.totalVfs, 2);
    if (this.totalVfs === 0) {
      throw new Error('SR-IOV capability: TotalVFs is 0');
    }
    const pageSizes = await this.#read(Sriov.supportedPageSizes, 4);
    if ((pageSizes & PAGE_SIZE_4K) === 0) {
      throw new Error(`SR-IOV capability: 4 KiB pages are not among 0x${pageSizes.toString(16)}`);
    }
    await this.#write(Sriov.systemPageSize, 4, PAGE_SIZE_4K);
    this.vfBars = await sizeBars(this.#config, this.#base + Sriov.vfBar0);
    this.vfDeviceId = await this.#read(Sriov.vfDeviceId, 2);
    await this.#read(Sriov.capabilities, 4);
    await this.#read(Sriov.functionDependencyLink, 1);
    for (let count = this.totalVfs; count > 0; count -= 1) {
      await this.#setNumVfs(count);
      this.#checkLayout(count);
    }
    await this.#setNumVfs(0);
  }

  /** Resource assignment: gives every VF BAR room for TotalVFs VFs. */
  async placeVfBars(take: (bar: SizedBar, count: number) => bigint): Promise<void> {
    const placed: PlacedBar[] = [];
    for (const bar of this.vfBars) {
      const address = take(bar, this.totalVfs);
      await this.#placeBar(bar, address);
      placed.push({ ...bar, address });
    }
    this.placedBars = placed;
  }

  /** `echo N > sriov_numvfs`, up to the wait after VF Enable; what the VFs read then decides how it went. */
  async enable(count: number): Promise<void> {
    const initialVfs = await this.#read(Sriov.initialVfs, 2);
    if (initialVfs !== this.totalVfs) {
      throw new Error(`SR-IOV capability: InitialVFs ${initialVfs}, TotalVFs ${this.totalVfs}`);
    }
    await this.#setNumVfs(count);
    await this.#write(Sriov.control, 2, this.#activeControl());
    this.numVfs = count;
    await this.#options.wait(ENABLE_WAIT_MILLISECONDS);
  }

  /** VF Memory Space Enable alone, while VFs are enabled. */
  async setMemorySpace(isOn: boolean): Promise<void> {
    const on = this.#activeControl();
    await this.#write(Sriov.control, 2, isOn ? on : on & ~SriovBit.vfMemorySpaceEnable);
  }

  /** `echo 0 > sriov_numvfs`, once the VFs' drivers have let go. */
  async disable(): Promise<void> {
    await this.#write(Sriov.control, 2, this.#idleControl());
    await this.#options.wait(DISABLE_WAIT_MILLISECONDS);
    this.numVfs = 0;
    await this.#setNumVfs(0);
  }

  /** After a PF reset: brings back what was there before, VFs included, unless the device kept them. */
  async restore(): Promise<void> {
    const control = await this.#read(Sriov.control, 2);
    if ((control & SriovBit.vfEnable) !== 0) {
      return;
    }
    await this.#write(Sriov.control, 2, this.#idleControl());
    for (let index = 0; index < BAR_COUNT; index += 1) {
      const bar = this.placedBars.find((each) => each.index === index);
      if (bar === undefined) {
        await this.#read(Sriov.control, 2);
      } else {
        await this.#placeBar(bar, bar.address);
      }
    }
    await this.#write(Sriov.systemPageSize, 4, PAGE_SIZE_4K);
    await this.#setNumVfs(this.numVfs);
    if (this.numVfs > 0) {
      await this.#write(Sriov.control, 2, this.#activeControl());
      await this.#options.wait(ENABLE_WAIT_MILLISECONDS);
    }
  }

  #idleControl(): number {
    return this.#options.ari ? SriovBit.ariCapableHierarchy : 0;
  }

  #activeControl(): number {
    return this.#idleControl() | SriovBit.vfEnable | SriovBit.vfMemorySpaceEnable;
  }

  /** Linux looks at VF Enable before it moves a VF BAR. */
  async #placeBar(bar: SizedBar, address: bigint): Promise<void> {
    await this.#read(Sriov.control, 2);
    await writeBar(this.#config, bar, address);
  }

  async #setNumVfs(count: number): Promise<void> {
    await this.#write(Sriov.numVfs, 2, count);
    this.firstVfOffset = await this.#read(Sriov.firstVfOffset, 2);
    this.vfStride = await this.#read(Sriov.vfStride, 2);
  }

  #checkLayout(count: number): void {
    if (this.firstVfOffset === 0 || (count > 1 && this.vfStride === 0)) {
      throw new Error(
        `SR-IOV capability: with NumVFs ${count} First VF Offset is ${this.firstVfOffset} and VF Stride ${this.vfStride}`,
      );
    }
  }

  #read(register: number, length: 1 | 2 | 4): Promise<number> {
    return this.#config.read(this.#base + register, length);
  }

  #write(register: number, length: 1 | 2 | 4, value: number): Promise<void> {
    return this.#config.write(this.#base + register, length, value);
  }
}
