// A declared device behind the port: the main thread's half plays the host that makes and removes VFs, the device
// thread's half opens functions and keeps what they share.

import { randomUUID } from 'node:crypto';
import type { Clock } from '../../../protocol/clock.ts';
import { pause } from '../../../protocol/retry.ts';
import {
  type DeviceDescription,
  type DeviceFunction,
  type FunctionHandle,
  type HeldVf,
  PF_INDEX,
  type PhysicalDevice,
} from '../../device/physical-device.ts';
import type { OpenContext } from '../kind.ts';
import type { DeviceDeclaration } from './declaration.ts';
import { type FunctionPlan, planFunction } from './function-plan.ts';
import { noPromise, stackOf } from './model-guard.ts';
import type { DeviceServices } from './model-services.ts';
import { OpenDevices } from './open-devices.ts';
import { RamFunction } from './ram-function.ts';
import { WorkQueue } from './work-queue.ts';

/** What goes to the device thread: from `options` it makes the declaration once more. */
export interface RamHandle<Options> extends FunctionHandle {
  /** Which device of this process; functions of one share what it declares. */
  readonly device: string;
  readonly options: Options;
}

/** What a device keeps outside of this process, on the main thread. */
export interface KeptStorage {
  /** Of one function: all that was written is on the disk when this ends. */
  sync(index: number): Promise<void>;
  /** Lets go of it. */
  close(): void;
}

const NOTHING_KEPT: KeptStorage = { sync: async () => {}, close: () => {} };

/** The main thread's half: nothing is held by anybody else, and making VFs takes as long as the declaration says. */
export class RamDevice<Options> implements PhysicalDevice {
  readonly description: DeviceDescription;
  readonly pf: RamHandle<Options>;
  readonly #clock: Clock;
  readonly #storage: KeptStorage;

  /** `storage` is what the options refer to. */
  constructor(
    description: DeviceDescription,
    options: Options,
    clock: Clock,
    storage = NOTHING_KEPT,
  ) {
    this.description = description;
    this.pf = { index: PF_INDEX, device: randomUUID(), options };
    this.#clock = clock;
    this.#storage = storage;
  }

  async expectMemory(): Promise<void> {}

  async createVfs(count: number): Promise<readonly RamHandle<Options>[]> {
    const { leastMakingMilliseconds } = this.description;
    if (leastMakingMilliseconds > 0) {
      await pause(this.#clock, leastMakingMilliseconds);
    }
    return Array.from({ length: count }, (_, index) => ({ ...this.pf, index }));
  }

  async releaseVfs(): Promise<readonly HeldVf[]> {
    return [];
  }

  async destroyVfs(): Promise<void> {}

  async resetFunction(): Promise<void> {}

  async mapDma(): Promise<void> {}

  async unmapDma(): Promise<void> {}

  async unmapAllDma(): Promise<void> {}

  syncStorage(index: number): Promise<void> {
    return this.#storage.sync(index);
  }

  onReleaseRequested(): void {}

  async close(): Promise<void> {
    this.#storage.close();
  }
}

/** Around what the functions of one device have in common, while any of them is open. */
interface OpenDevice {
  readonly declaration: DeviceDeclaration<unknown>;
  readonly plans: Readonly<Record<'pf' | 'vf', FunctionPlan<unknown>>>;
  readonly shared: unknown;
  readonly services: DeviceServices;
}

const openDevices = new OpenDevices<OpenDevice>();

/** Opens a function on the device thread. `declare` is called for the first one of a device. */
export function openRamFunction<Options, Shared>(
  { index, device, options }: RamHandle<Options>,
  declare: (options: Options) => DeviceDeclaration<Shared>,
  { generation, wires, clock, log }: Pick<OpenContext, 'generation' | 'wires' | 'clock' | 'log'>,
): DeviceFunction {
  const { declaration, plans, shared, services } = openDevices.enter(device, () => {
    const declaration = declare(options) as DeviceDeclaration<unknown>;
    return {
      declaration,
      plans: { pf: planFunction(declaration, false), vf: planFunction(declaration, true) },
      shared: noPromise(declaration.share?.(), 'share'),
      services: { clock, queue: new WorkQueue(clock), log },
    };
  });
  const closed = (): void => {
    if (openDevices.leave(device)) {
      try {
        noPromise(declaration.unshare?.(shared), 'unshare');
      } catch (error) {
        log.error(`${declaration.name}: unshare failed: ${stackOf(error)}`);
      }
    }
  };
  try {
    return new RamFunction({
      device: declaration.name,
      plan: index === PF_INDEX ? plans.pf : plans.vf,
      shared,
      index,
      generation,
      wires,
      services,
      closed,
    });
  } catch (error) {
    closed();
    throw error;
  }
}
