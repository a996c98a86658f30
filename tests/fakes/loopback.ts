// Loopback devices for tests that open their functions themselves.

import type {
  DeviceDescription,
  DeviceFunction,
  FunctionHandle,
  FunctionWires,
} from '../../backend/device/physical-device.ts';
import { describeDevice } from '../../backend/devices/kit/describe.ts';
import { openRamFunction, RamDevice } from '../../backend/devices/kit/ram-device.ts';
import { declareLoopback, type LoopbackOptions } from '../../backend/devices/loopback/device.ts';
import { logInto } from '../../protocol/log.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';

export type { LoopbackOptions };

export interface LoopbackHandle extends FunctionHandle {
  readonly options: LoopbackOptions;
}

export function loopbackDevice(options: LoopbackOptions): RamDevice<LoopbackOptions> {
  return new RamDevice(describeLoopback(options), options, processClock);
}

export function describeLoopback(options: LoopbackOptions): DeviceDescription {
  return describeDevice(declareLoopback(options));
}

export function openLoopbackFunction(
  handle: LoopbackHandle,
  generation: number,
  wires: FunctionWires,
): DeviceFunction {
  return openRamFunction({ device: 'loopback under test', ...handle }, declareLoopback, {
    generation,
    wires,
    clock: processClock,
    log: logInto(() => {}),
  });
}
