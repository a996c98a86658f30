// One open function of a device in RAM, on the device thread: its config space, its BARs and its model. What a model
// throws is logged with the access, which is answered as a bus answers where nobody does; the backend goes on.

import { WireError } from '../../../protocol/errno.ts';
import { loadUint, storeUint } from '../../../protocol/little-endian.ts';
import { IrqSetFlag } from '../../../protocol/vfio-user/messages.ts';
import {
  type DeviceFunction,
  type DmaWindow,
  type Done,
  type FunctionWires,
  type IrqRequest,
  PF_INDEX,
} from '../../device/physical-device.ts';
import { BarSpace } from './bar-space.ts';
import type { FunctionConfig } from './config.ts';
import type { FunctionModel } from './declaration.ts';
import type { FunctionPlan } from './function-plan.ts';
import { insistOnModel, ModelGuard, noPromise } from './model-guard.ts';
import { ModelPort } from './model-port.ts';
import { type DeviceServices, ModelServices } from './model-services.ts';

export interface RamFunctionOptions<Shared> {
  /** The device's name. */
  readonly device: string;
  readonly plan: FunctionPlan<Shared>;
  readonly shared: Shared;
  readonly index: number;
  readonly generation: number;
  readonly wires: FunctionWires;
  readonly services: DeviceServices;
  /** The function has gone. */
  closed(): void;
}

/** What a read of config space gives: nothing reads while another does. */
const PIECE = new Uint8Array(4);

export class RamFunction<Shared> implements DeviceFunction {
  readonly #closed: () => void;
  readonly #guard: ModelGuard;
  readonly #config: FunctionConfig;
  readonly #bars: BarSpace;
  readonly #asked: ModelServices;
  readonly #model: FunctionModel;

  constructor(options: RamFunctionOptions<Shared>) {
    const { device, plan, shared, index, generation, wires, services, closed } = options;
    const { declared } = plan;
    const name = index === PF_INDEX ? 'pf' : `vf${index}`;
    this.#closed = closed;
    this.#guard = new ModelGuard(`${device}, ${name}`, services.log);
    this.#config = plan.config.open(() => this.#asked.followInterruptStatus());
    this.#bars = new BarSpace(`${device}-${name}`, plan.bars, {
      read: (bar, offset, into) => noPromise(this.#model.readTrapped?.(bar, offset, into)),
      write: (bar, offset, from) => noPromise(this.#model.writeTrapped?.(bar, offset, from)),
    });
    this.#asked = new ModelServices({
      declared,
      config: this.#config,
      bars: this.#bars,
      wires,
      services,
      guard: this.#guard,
    });
    try {
      const port = new ModelPort(index, generation, this.#asked);
      this.#model = insistOnModel(declared.create(port, shared));
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  readConfig(offset: number, length: 1 | 2 | 4): number {
    this.#config.space.read(offset, length, PIECE);
    return loadUint(PIECE, 0, length);
  }

  writeConfig(offset: number, length: 1 | 2 | 4, value: number): void {
    const bytes = new Uint8Array(length);
    storeUint(bytes, 0, length, value);
    this.#config.space.write(offset, bytes);
  }

  readRegion(region: number, offset: number, into: Uint8Array): void {
    try {
      this.#bars.read(region, offset, into);
    } catch (error) {
      this.#guard.failed(access('read of', into.length, region, offset), error);
      into.fill(0xff);
    }
  }

  writeRegion(region: number, offset: number, from: Uint8Array): void {
    try {
      this.#bars.write(region, offset, from);
    } catch (error) {
      this.#guard.failed(access('write of', from.length, region, offset), error);
    }
  }

  regionFile(region: number): { fd: number; offset: bigint } | undefined {
    const fd = this.#bars.file(region);
    return fd === undefined ? undefined : { fd, offset: 0n };
  }

  /** The session's eventfds are reached through the wires: there is nothing of its own to bind. */
  setIrqs({ index, flags }: IrqRequest): void {
    const isMask = (flags & (IrqSetFlag.actionMask | IrqSetFlag.actionUnmask)) !== 0;
    if (isMask && (flags & IrqSetFlag.dataEventFd) !== 0) {
      throw new WireError('EINVAL', 'masking by eventfd', {
        call: 'DEVICE_SET_IRQS',
        path: `index ${index}`,
      });
    }
  }

  mapDma(_window: DmaWindow, done: Done): void {
    done();
  }

  unmapDma(_window: DmaWindow, done: Done): void {
    done();
  }

  unmapAllDma(done: Done): void {
    done();
  }

  reset(done: Done): void {
    this.#asked.forgetPending();
    this.#config.reset();
    this.#bars.reset();
    this.#asked.followInterruptStatus();
    this.#guard.call(
      () => 'reset',
      () => noPromise(this.#model.reset?.()),
    );
    done();
  }

  hostBusy(_busy: boolean): void {}

  close(): void {
    this.#guard.call(
      () => 'close',
      () => noPromise(this.#model.close?.()),
    );
    this.#end();
    this.#closed();
  }

  #end(): void {
    try {
      this.#asked.close();
    } finally {
      this.#bars.close();
    }
  }
}

function access(what: string, bytes: number, region: number, offset: number): string {
  return `${what} ${bytes} bytes at 0x${offset.toString(16)} of BAR ${region}`;
}
