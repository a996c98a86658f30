// The loopback as a kind of device: `--device=loopback`, or `--loopback` for short.
import type { DeviceKind } from '../kind.ts';
import { LoopbackDevice, type LoopbackHandle, openLoopbackFunction } from './device.ts';
import { SMALLEST_VF_BAR } from './options.ts';

const TOTAL_VFS = 7;

interface Options {
  readonly totalVfs?: number;
  readonly vfBarSize?: number;
  readonly enableDelay?: number;
}

export const loopbackKind: DeviceKind = {
  async open(options: Options) {
    return new LoopbackDevice({
      totalVfs: options.totalVfs ?? TOTAL_VFS,
      vfBarSize: options.vfBarSize ?? SMALLEST_VF_BAR,
      enableMilliseconds: options.enableDelay ?? 0,
    });
  },
  openFunction: (handle, { generation, wires }) =>
    openLoopbackFunction(handle as LoopbackHandle, generation, wires),
};
