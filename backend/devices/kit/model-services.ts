// What a model asks of its function, on the device thread: interrupts, guest memory, timers and work. The model may ask when
// the function has gone; then nothing comes of it.

import type { Clock, Timer } from '../../../protocol/clock.ts';
import type { Log } from '../../../protocol/log.ts';
import { PAGE_BYTES } from '../../../protocol/page.ts';
import { IrqIndex } from '../../../protocol/vfio-user/commands.ts';
import type { FunctionWires } from '../../device/physical-device.ts';
import type { RegisterBlock } from '../../pci/register-block.ts';
import type { RegisterTable } from '../../pci/registers.ts';
import type { BarSpace } from './bar-space.ts';
import type { FunctionConfig } from './config.ts';
import type { BlockEvents, FunctionDeclaration } from './declaration.ts';
import { clipped, type ModelGuard, noPromise } from './model-guard.ts';
import type { Step, WorkQueue } from './work-queue.ts';

/** What all functions of a device stand on. */
export interface DeviceServices {
  readonly clock: Clock;
  readonly queue: WorkQueue;
  readonly log: Log;
}

export interface ModelServicesOptions {
  readonly declared: Pick<
    FunctionDeclaration<never>,
    'bars' | 'interruptPin' | 'msixVectors' | 'msiVectors'
  >;
  readonly config: FunctionConfig;
  readonly bars: BarSpace;
  readonly wires: FunctionWires;
  readonly services: DeviceServices;
  readonly guard: ModelGuard;
}

/** Of a timer: the longest that Linux's poll takes. */
const LONGEST_MILLISECONDS = 2 ** 31 - 1;
const NO_TIMER: Timer = { cancel: () => {} };

export class ModelServices {
  /** MSI-X's, or MSI's where there is no MSI-X. */
  readonly vectors: number;
  readonly wires: FunctionWires;
  readonly #options: ModelServicesOptions;
  readonly #timers = new Set<Timer>();
  #isClosed = false;

  constructor(options: ModelServicesOptions) {
    const { declared, wires } = options;
    this.#options = options;
    this.vectors = declared.msixVectors || declared.msiVectors || 0;
    this.wires = wires;
  }

  /** Whether the function reaches the bus. */
  isMaster(): boolean {
    return !this.#isClosed && this.#options.config.busMasterEnable();
  }

  block<T extends RegisterTable>(table: T, events: BlockEvents<T>): RegisterBlock<T> {
    const { written, reading } = events;
    return this.#options.bars.block(table, {
      ...(written && { written: (write) => noPromise(written.call(events, write)) }),
      ...(reading && { reading: (register) => noPromise(reading.call(events, register)) }),
    });
  }

  readRam(bar: number, offset: number, into: Uint8Array): void {
    this.#ram(bar, offset, into.length)?.read(bar, offset, into);
  }

  writeRam(bar: number, offset: number, from: Uint8Array): void {
    this.#ram(bar, offset, from.length)?.write(bar, offset, from);
  }

  raise(vector: number): boolean {
    const { wires } = this;
    return (
      this.isMaster() && (wires.raise(IrqIndex.msix, vector) || wires.raise(IrqIndex.msi, vector))
    );
  }

  driveIntx(asserted: boolean): void {
    const { declared, config } = this.#options;
    if (declared.interruptPin === undefined) {
      throw new TypeError('driveIntx: the function declares no interruptPin');
    }
    if (!this.#isClosed) {
      config.setInterruptStatus(asserted);
      this.followInterruptStatus();
    }
  }

  after(milliseconds: number, callback: () => void): Timer {
    if (!(milliseconds >= 0 && milliseconds <= LONGEST_MILLISECONDS)) {
      const range = `0 to ${LONGEST_MILLISECONDS} milliseconds`;
      throw new RangeError(`after: ${milliseconds} is not a number from ${range}`);
    }
    if (this.#isClosed) {
      return NO_TIMER;
    }
    const { services, guard } = this.#options;
    const timer = services.clock.after(milliseconds, () => {
      this.#timers.delete(timer);
      guard.call(
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

  work(step: Step): void {
    if (this.#isClosed) {
      return;
    }
    const { services, guard } = this.#options;
    services.queue.add(this, (isOver) => {
      let goesOn = false as boolean;
      guard.call(
        () => 'work',
        () => {
          goesOn = step(isOver);
          noPromise(goesOn);
        },
      );
      return goesOn === true;
    });
  }

  log(level: 'debug' | 'info' | 'warn' | 'error', message: string): void {
    const { services, guard } = this.#options;
    services.log[level](`${guard.name}: ${clipped(message)}`);
  }

  /** The INTx pin follows Interrupt Status and Interrupt Disable. */
  followInterruptStatus(): void {
    const { declared, config } = this.#options;
    if (declared.interruptPin !== undefined) {
      this.wires.drive(IrqIndex.intx, 0, config.isIntxAsserted());
    }
  }

  /** Its timers and its work are none any more. */
  forgetPending(): void {
    for (const timer of this.#timers) {
      timer.cancel();
    }
    this.#timers.clear();
    this.#options.services.queue.forget(this);
  }

  /** The function goes. */
  close(): void {
    if (this.#options.declared.interruptPin !== undefined) {
      this.driveIntx(false);
    }
    this.#isClosed = true;
    this.forgetPending();
  }

  /** The BARs, if they are still there. @throws RangeError for what is no memory: the model itself answers there, or nobody */
  #ram(bar: number, offset: number, length: number): BarSpace | undefined {
    const { declared, bars } = this.#options;
    const parts = declared.bars.find(({ index }) => index === bar)?.parts ?? [];
    const isMemory = (at: number): boolean =>
      parts.some((part) => part.kind === 'ram' && at >= part.at && at < part.at + part.size);
    let isAll = Number.isInteger(offset);
    for (let at = offset; isAll && at < offset + length; at += PAGE_BYTES - (at % PAGE_BYTES)) {
      isAll = isMemory(at);
    }
    if (!isAll) {
      throw new RangeError(`${length} bytes at ${offset} are not all memory pages of BAR ${bar}`);
    }
    return this.#isClosed ? undefined : bars;
  }
}
