// One open function of a device in RAM, on the device thread: its config space, its BARs and its model. What a model
// throws is logged with the access, which is answered as a bus answers where nobody does; the backend goes on.

import type { Clock, Timer } from '../../../protocol/clock.ts';
import { WireError } from '../../../protocol/errno.ts';
import { loadUint, storeUint } from '../../../protocol/little-endian.ts';
import type { Log } from '../../../protocol/log.ts';
import { IrqIndex } from '../../../protocol/vfio-user/commands.ts';
import { IrqSetFlag } from '../../../protocol/vfio-user/messages.ts';
import {
  type DeviceFunction,
  type DmaWindow,
  type Done,
  type FunctionWires,
  type IrqRequest,
  PF_INDEX,
} from '../../device/physical-device.ts';
import type { RegisterBlock } from '../../pci/register-block.ts';
import type { RegisterTable } from '../../pci/registers.ts';
import { BarSpace } from './bar-space.ts';
import type { FunctionConfig } from './config.ts';
import type {
  BlockEvents,
  FunctionDeclaration,
  FunctionModel,
  FunctionPort,
} from './declaration.ts';
import type { FunctionPlan } from './function-plan.ts';
import type { GuestMemory } from './guest-memory.ts';
import { insistOnModel, noPromise, stackOf } from './model-guard.ts';
import type { Step, WorkQueue } from './work-queue.ts';

/** What all functions of a device stand on. */
export interface DeviceServices {
  readonly clock: Clock;
  readonly queue: WorkQueue;
  readonly log: Log;
}

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

/** Of a timer: the longest that Linux's poll takes. */
const LONGEST_MILLISECONDS = 2 ** 31 - 1;

export class RamFunction<Shared> implements DeviceFunction {
  readonly #options: RamFunctionOptions<Shared>;
  readonly #name: string;
  readonly #declared: FunctionDeclaration<Shared>;
  readonly #hasIntx: boolean;
  readonly #vectors: number;
  readonly #config: FunctionConfig;
  readonly #bars: BarSpace;
  readonly #timers = new Set<Timer>();
  readonly #model: FunctionModel;
  readonly #piece = new Uint8Array(4);
  /** Its port is still somebody's, but leads nowhere. */
  #isClosed = false;

  constructor(options: RamFunctionOptions<Shared>) {
    this.#options = options;
    const { device, index, plan } = options;
    const { declared } = plan;
    this.#name = index === PF_INDEX ? 'pf' : `vf${index}`;
    this.#declared = declared;
    this.#hasIntx = declared.interruptPin !== undefined;
    this.#vectors = declared.msixVectors || declared.msiVectors || 0;
    this.#config = plan.config.open(() => this.#driveIntx());
    this.#bars = new BarSpace(`${device}-${this.#name}`, plan.bars, {
      read: (bar, offset, into) => noPromise(this.#model.readTrapped?.(bar, offset, into)),
      write: (bar, offset, from) => noPromise(this.#model.writeTrapped?.(bar, offset, from)),
    });
    try {
      this.#model = insistOnModel(declared.create(this.#port(), options.shared));
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  readConfig(offset: number, length: 1 | 2 | 4): number {
    this.#config.space.read(offset, length, this.#piece);
    return loadUint(this.#piece, 0, length);
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
      this.#fault(access('read of', into.length, region, offset), error);
      into.fill(0xff);
    }
  }

  writeRegion(region: number, offset: number, from: Uint8Array): void {
    try {
      this.#bars.write(region, offset, from);
    } catch (error) {
      this.#fault(access('write of', from.length, region, offset), error);
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
    this.#forgetPending();
    this.#config.reset();
    this.#bars.reset();
    this.#driveIntx();
    this.#guarded(
      () => 'reset',
      () => noPromise(this.#model.reset?.()),
    );
    done();
  }

  hostBusy(_busy: boolean): void {}

  close(): void {
    this.#guarded(
      () => 'close',
      () => noPromise(this.#model.close?.()),
    );
    if (this.#hasIntx) {
      this.#setIntx(false);
    }
    this.#end();
    this.#options.closed();
  }

  #end(): void {
    this.#isClosed = true;
    this.#forgetPending();
    this.#bars.close();
  }

  #forgetPending(): void {
    for (const timer of this.#timers) {
      timer.cancel();
    }
    this.#timers.clear();
    this.#options.services.queue.forget(this);
  }

  /** False where the model threw. */
  #guarded(what: () => string, call: () => unknown): boolean {
    try {
      call();
      return true;
    } catch (error) {
      this.#fault(what(), error);
      return false;
    }
  }

  #fault(what: string, error: unknown): void {
    const { device, services } = this.#options;
    services.log.error(`${device}, ${this.#name}: ${what} failed: ${stackOf(error)}`);
  }

  /** Whether it reaches the bus. */
  #isMaster(): boolean {
    return !this.#isClosed && this.#config.busMasterEnable();
  }

  #raise(vector: number): boolean {
    if (!this.#isMaster()) {
      return false;
    }
    const { wires } = this.#options;
    return wires.raise(IrqIndex.msix, vector) || wires.raise(IrqIndex.msi, vector);
  }

  #setIntx(asserted: boolean): void {
    if (!this.#hasIntx) {
      throw new TypeError('driveIntx: the function declares no interruptPin');
    }
    if (this.#isClosed) {
      return;
    }
    this.#config.setInterruptStatus(asserted);
    this.#driveIntx();
  }

  /** The pin follows Interrupt Status and Interrupt Disable. */
  #driveIntx(): void {
    if (this.#hasIntx) {
      this.#options.wires.drive(IrqIndex.intx, 0, this.#config.isIntxAsserted());
    }
  }

  #after(milliseconds: number, callback: () => void): Timer {
    if (!(milliseconds >= 0 && milliseconds <= LONGEST_MILLISECONDS)) {
      const range = `0 to ${LONGEST_MILLISECONDS} milliseconds`;
      throw new RangeError(`after: ${milliseconds} is not a number from ${range}`);
    }
    if (this.#isClosed) {
      return { cancel: () => {} };
    }
    const timer = this.#options.services.clock.after(milliseconds, () => {
      this.#timers.delete(timer);
      this.#guarded(
        () => 'a timer',
        () => noPromise(callback()),
      );
    });
    this.#timers.add(timer);
    return {
      cancel: () => {
        this.#timers.delete(timer);
        timer.cancel();
      },
    };
  }

  #work(step: Step): void {
    if (this.#isClosed) {
      return;
    }
    this.#options.services.queue.add(this, (isOver) => {
      let goesOn = false as boolean;
      this.#guarded(
        () => 'work',
        () => {
          goesOn = step(isOver);
          noPromise(goesOn);
        },
      );
      return goesOn === true;
    });
  }

  #block<T extends RegisterTable>(table: T, events: BlockEvents<T>): RegisterBlock<T> {
    const { written, reading } = events;
    return this.#bars.block(table, {
      ...(written && { written: (write) => noPromise(written.call(events, write)) }),
      ...(reading && { reading: (register) => noPromise(reading.call(events, register)) }),
    });
  }

  /** The BARs, if they are still there. @throws RangeError for a range that is not all in one */
  #ram(bar: number, offset: number, length: number): BarSpace | undefined {
    const size = this.#declared.bars.find(({ index }) => index === bar)?.size ?? 0;
    if (!(Number.isInteger(offset) && offset >= 0 && offset + length <= size)) {
      throw new RangeError(
        `${length} bytes at ${offset} are not in BAR ${bar}, which has ${size} bytes`,
      );
    }
    return this.#isClosed ? undefined : this.#bars;
  }

  #memory(): GuestMemory {
    const { wires } = this.#options;
    return {
      read: (address, into) => this.#isMaster() && wires.readMemory(address, into),
      write: (address, from) => this.#isMaster() && wires.writeMemory(address, from),
      moveFile: (file, segments, way) => this.#isMaster() && wires.moveFile?.(file, segments, way),
    };
  }

  #port(): FunctionPort {
    const { index, generation, services, device } = this.#options;
    const isMaster = (): boolean => this.#isMaster();
    return {
      index,
      generation,
      memory: this.#memory(),
      get busMasterEnable() {
        return isMaster();
      },
      vectors: this.#vectors,
      block: (table, events) => this.#block(table, events),
      readRam: (bar, offset, into) => this.#ram(bar, offset, into.length)?.read(bar, offset, into),
      writeRam: (bar, offset, from) =>
        this.#ram(bar, offset, from.length)?.write(bar, offset, from),
      raise: (vector) => this.#raise(vector),
      driveIntx: (asserted) => this.#setIntx(asserted),
      after: (milliseconds, callback) => this.#after(milliseconds, callback),
      work: (step) => this.#work(step),
      log: (level, message) => services.log[level](`${device}, ${this.#name}: ${message}`),
    };
  }
}

function access(what: string, bytes: number, region: number, offset: number): string {
  return `${what} ${bytes} bytes at 0x${offset.toString(16)} of BAR ${region}`;
}
