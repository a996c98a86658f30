// The loopback as a kind of device: `--device=loopback`, or `--loopback` for short.

import type { DeviceKind } from '../kind.ts';
import { openRamFunction, RamDevice, type RamHandle } from '../kit/ram-device.ts';
import { declareLoopback, type LoopbackOptions } from './device.ts';
import { SMALLEST_VF_BAR } from './options.ts';

const TOTAL_VFS = 7;

interface Options {
  readonly totalVfs?: number;
  readonly vfBarSize?: number;
  readonly enableDelay?: number;
}

export const loopbackKind: DeviceKind = {
  async open({ totalVfs, vfBarSize, enableDelay }: Options) {
    const options = {
      totalVfs: totalVfs ?? TOTAL_VFS,
      vfBarSize: vfBarSize ?? SMALLEST_VF_BAR,
      enableMilliseconds: enableDelay ?? 0,
    };
    return new RamDevice(declareLoopback(options), options);
  },
  openFunction: (handle, context) =>
    openRamFunction(handle as RamHandle<LoopbackOptions>, declareLoopback, context),
};
