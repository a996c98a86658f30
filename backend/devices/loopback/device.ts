// The loopback device: an SR-IOV device in RAM behind the same port as a real one. Its main-thread half plays the
// host that makes and removes VFs; its device-thread half is LoopbackFunction.

import { IrqIndex, RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { IrqInfoFlag } from '../../../protocol/vfio-user/messages.ts';
import type {
  DeviceDescription,
  FunctionHandle,
  FunctionShape,
  FunctionWires,
  HeldVf,
  PhysicalDevice,
  RegionShape,
} from '../../device/physical-device.ts';
import { PF_INDEX } from '../../device/physical-device.ts';
import type { BarShape } from '../../pci/bars.ts';
import { EXTENDED_CONFIG_BYTES } from '../../pci/spec/header.ts';
import { Ids, loopbackConfig } from './config.ts';
import { LoopbackFunction } from './function.ts';
import { Layout, REGISTER_TABLE } from './registers.ts';

const PF_BAR_BYTES = 64 * 1024;
const PF_MSIX_VECTORS = 8;
const VF_MSIX_VECTORS = 4;
const REGION_COUNT = 9;

const BAR_TABLES = [{ region: 0, title: '', offset: Layout.registers, table: REGISTER_TABLE }];

/** How a loopback device is made; sizes in bytes, times in milliseconds. */
export interface LoopbackOptions {
  readonly totalVfs: number;
  readonly vfBarSize: number;
  /** How long making VFs takes, as a host's sriov_numvfs would. */
  readonly enableMilliseconds: number;
}

export interface LoopbackHandle extends FunctionHandle {
  readonly options: LoopbackOptions;
}

/** What the device looks like; the same on both threads. */
export function describeLoopback(options: LoopbackOptions): DeviceDescription {
  const pfBars: BarShape[] = [bar(PF_BAR_BYTES)];
  const vfBars: BarShape[] = [bar(options.vfBarSize)];
  const memoryOf = (size: number) => [{ offset: Layout.memory, size: size - Layout.memory }];
  return {
    name: 'loopback',
    pf: {
      config: imageOf(false, pfBars, PF_MSIX_VECTORS, options.totalVfs),
      bars: pfBars,
      regions: regionsOf(PF_BAR_BYTES, memoryOf(PF_BAR_BYTES)),
      irqs: irqsOf(1, PF_MSIX_VECTORS),
      barTables: BAR_TABLES,
    },
    vf: {
      config: imageOf(true, vfBars, VF_MSIX_VECTORS, 0),
      bars: vfBars,
      regions: regionsOf(options.vfBarSize, memoryOf(options.vfBarSize)),
      irqs: irqsOf(0, VF_MSIX_VECTORS),
      barTables: BAR_TABLES,
    },
    totalVfs: options.totalVfs,
    vfDeviceId: Ids.vfDevice,
    leastMakingMilliseconds: options.enableMilliseconds,
    vfBars,
  };
}

/** Opens a function on the device thread. */
export function openLoopbackFunction(
  handle: LoopbackHandle,
  generation: number,
  wires: FunctionWires,
): LoopbackFunction {
  const { options, index } = handle;
  const isVf = index !== PF_INDEX;
  const barSize = isVf ? options.vfBarSize : PF_BAR_BYTES;
  const config = loopbackConfig({
    isVf,
    // A VF's own BAR registers are read-only 0: its addresses come from the PF's SR-IOV capability.
    bars: isVf ? [] : [bar(barSize)],
    msixVectors: isVf ? VF_MSIX_VECTORS : PF_MSIX_VECTORS,
    totalVfs: options.totalVfs,
  });
  return new LoopbackFunction(index, generation, barSize, config, wires);
}

/** The main thread's half: nothing is held by anybody else, and making VFs takes as long as `options` say. */
export class LoopbackDevice implements PhysicalDevice {
  readonly description: DeviceDescription;
  readonly pf: LoopbackHandle;
  readonly #options: LoopbackOptions;

  constructor(options: LoopbackOptions) {
    this.#options = options;
    this.description = describeLoopback(options);
    this.pf = { index: PF_INDEX, options };
  }

  async createVfs(count: number): Promise<readonly LoopbackHandle[]> {
    const { enableMilliseconds } = this.#options;
    if (enableMilliseconds > 0) {
      await new Promise((resolve) => setTimeout(resolve, enableMilliseconds));
    }
    return Array.from({ length: count }, (_, index) => ({
      index,
      options: this.#options,
    }));
  }

  async releaseVfs(): Promise<readonly HeldVf[]> {
    return [];
  }

  async destroyVfs(): Promise<void> {}

  async resetFunction(): Promise<void> {}

  async mapDma(): Promise<void> {}

  async unmapDma(): Promise<void> {}

  onReleaseRequested(): void {}

  async close(): Promise<void> {}
}

function bar(size: number): BarShape {
  return { index: 0, size, kind: 'memory64', prefetchable: true };
}

function imageOf(
  isVf: boolean,
  bars: readonly BarShape[],
  msixVectors: number,
  totalVfs: number,
): Uint8Array {
  const image = new Uint8Array(EXTENDED_CONFIG_BYTES);
  loopbackConfig({ isVf, bars, msixVectors, totalVfs }).space.read(0, image.length, image);
  return image;
}

function regionsOf(barSize: number, mappable: RegionShape['mappable']): RegionShape[] {
  return Array.from({ length: REGION_COUNT }, (_, index) => {
    const isBar = index === RegionIndex.bar0;
    const isConfig = index === RegionIndex.config;
    return {
      index,
      size: isBar ? barSize : isConfig ? EXTENDED_CONFIG_BYTES : 0,
      readable: isBar || isConfig,
      writable: isBar || isConfig,
      mappable: isBar ? mappable : [],
    };
  });
}

function irqsOf(msi: number, msix: number): FunctionShape['irqs'] {
  const { eventFd, noResize, maskable, autoMasked } = IrqInfoFlag;
  return [
    { index: IrqIndex.intx, count: 0, flags: eventFd | maskable | autoMasked },
    { index: IrqIndex.msi, count: msi, flags: eventFd | noResize },
    { index: IrqIndex.msix, count: msix, flags: eventFd | noResize },
    { index: IrqIndex.err, count: 1, flags: eventFd | noResize },
    { index: IrqIndex.req, count: 1, flags: eventFd | noResize },
  ];
}
