// One NVMe controller: its registers, and what the host does by them: enable, disable, reset, shutdown, online, offline. The
// work on queues is queue-work.ts. NVM Express 1.4, "Controller Registers" and "Controller Initialization".

import { loadUint } from '../../../protocol/little-endian.ts';
import type { Faults } from '../../device/faults.ts';
import { PF_INDEX } from '../../device/physical-device.ts';
import type { RegisterBlock } from '../../pci/register-block.ts';
import { fieldOf } from '../../pci/registers.ts';
import type { FunctionModel, FunctionPort, RegisterWrite } from '../kit/declaration.ts';
import { commandFault } from './command-fault.ts';
import { AsynchronousEvents } from './events.ts';
import { type ControllerLimits, Features } from './features.ts';
import { EVENT_REQUESTS } from './identify.ts';
import type { IoCounts } from './io-commands.ts';
import { ErrorLog } from './log-pages.ts';
import { QueueSet } from './queue-set.ts';
import { QueueWork } from './queue-work.ts';
import { LEAST_ENTRIES } from './queues.ts';
import { COMPLETION_ENTRY_SHIFT, SUBMISSION_ENTRY_SHIFT } from './spec/commands.ts';
import { CONTROLLER, DOORBELLS, ShutdownStatus } from './spec/registers.ts';
import type { SecondaryController, Subsystem } from './subsystem.ts';

export const LARGEST_PAGE = 4;
const SMALLEST_PAGE_BYTES = 4096;

export interface ControllerOptions {
  readonly subsystem: Subsystem;
  /** Queue pairs, the admin queue's among them; and as many vectors, unless the function has fewer. */
  readonly queuePairs: number;
  readonly faults: Faults;
}

type Write = RegisterWrite<typeof CONTROLLER>;

export class Controller implements FunctionModel, SecondaryController, ControllerLimits {
  readonly #port: FunctionPort;
  readonly #options: ControllerOptions;
  readonly #registers: RegisterBlock<typeof CONTROLLER>;
  readonly #features: Features;
  readonly #events = new AsynchronousEvents(EVENT_REQUESTS);
  readonly #errors = new ErrorLog();
  readonly #counts: IoCounts = { bytesRead: 0, bytesWritten: 0, reads: 0, writes: 0 };
  /** What goes on while it is enabled. */
  #work: QueueWork | undefined;
  #isOnline = true;
  #isWorking = false;
  /** Shutdowns that were begun or forgotten. */
  #shutdowns = 0;

  constructor(port: FunctionPort, options: ControllerOptions) {
    this.#port = port;
    this.#options = options;
    this.#features = new Features(this);
    this.#registers = port.block(CONTROLLER, { written: (write) => this.#written(write) });
    if (!this.#isPrimary) {
      this.#isOnline = options.subsystem.attach(port.index, this);
    }
    this.#showState();
  }

  writeTrapped(_bar: number, offset: number, from: Uint8Array): void {
    for (let at = 0; at + 4 <= from.length; at += 4) {
      this.#work?.ring(offset - DOORBELLS + at, loadUint(from, at, 2));
    }
  }

  reset(): void {
    this.#isWorking = false;
    this.#disable();
    if (this.#isPrimary) {
      this.#options.subsystem.primaryWasReset();
    }
    this.#showState();
  }

  close(): void {
    this.#disable();
    if (!this.#isPrimary) {
      this.#options.subsystem.detach(this.#port.index);
    }
  }

  setOnline(isOnline: boolean): void {
    this.#isOnline = isOnline;
    this.#disable();
    this.#registers.reset();
    this.#showState();
  }

  /** An offline controller shows no capabilities, and that it cannot be used. */
  #showState(): void {
    if (!this.#isOnline) {
      this.#registers.set('capabilitiesLow', 0);
      this.#registers.set('capabilitiesHigh', 0);
      this.#registers.setField('status', 'fatal', 1);
    }
  }

  #written({ register, before, after }: Write): void {
    if (!this.#isOnline) {
      return;
    }
    if (register === 'configuration') {
      this.#configured(before, after);
    } else if (register === 'interruptMaskSet') {
      this.#setMask(before | after);
    } else if (register === 'interruptMaskClear') {
      this.#setMask(before & ~after);
    }
  }

  #setMask(mask: number): void {
    this.#registers.set('interruptMaskSet', mask >>> 0);
    this.#registers.set('interruptMaskClear', mask >>> 0);
  }

  #configured(before: number, after: number): void {
    const was = fieldOf(CONTROLLER.configuration, 'enable', before);
    const is = fieldOf(CONTROLLER.configuration, 'enable', after);
    if (was === 0 && is === 1) {
      this.#enable();
    } else if (was === 1 && is === 0) {
      this.#disable();
      this.#setMask(0);
      this.#registers.set('status', 0);
    }
    this.#forgetShutdown();
    if (fieldOf(CONTROLLER.configuration, 'shutdownNotification', after) === 0) {
      this.#registers.setField('status', 'shutdownStatus', ShutdownStatus.normal);
    } else {
      this.#shutDown();
    }
  }

  /** It is complete when all that was written is on the disk, if there is one. */
  #shutDown(): void {
    const { sync } = this.#options.subsystem.storageOf(this.#port.index);
    const complete = (): void =>
      this.#registers.setField('status', 'shutdownStatus', ShutdownStatus.complete);
    if (sync === undefined) {
      complete();
      return;
    }
    this.#registers.setField('status', 'shutdownStatus', ShutdownStatus.occurring);
    const which = this.#shutdowns;
    sync(() => {
      if (which === this.#shutdowns) {
        complete();
      }
    });
  }

  #forgetShutdown(): void {
    this.#shutdowns++;
  }

  #enable(): void {
    const registers = this.#registers;
    const pageShift = registers.field('configuration', 'pageSize');
    const submissions = registers.field('adminQueueAttributes', 'submissionSize') + 1;
    const completions = registers.field('adminQueueAttributes', 'completionSize') + 1;
    const isUsable =
      pageShift <= LARGEST_PAGE &&
      registers.field('configuration', 'commandSet') === 0 &&
      registers.field('configuration', 'arbitration') === 0 &&
      Math.min(submissions, completions) >= LEAST_ENTRIES;
    if (!isUsable) {
      this.#fail('it was enabled with a configuration that it does not have');
      return;
    }
    const pageBytes = SMALLEST_PAGE_BYTES << pageShift;
    const queues = new QueueSet(this.ioQueues, this.vectors, pageBytes);
    queues.addAdmin(
      {
        base: registers.getPair('adminSubmissionLow', 'adminSubmissionHigh'),
        entries: submissions,
      },
      {
        base: registers.getPair('adminCompletionLow', 'adminCompletionHigh'),
        entries: completions,
      },
    );
    this.#work = new QueueWork({
      port: this.#port,
      subsystem: this.#options.subsystem,
      queues,
      pageBytes,
      features: this.#features,
      events: this.#events,
      errors: this.#errors,
      counts: this.#counts,
      hasEntrySizes: () =>
        registers.field('configuration', 'submissionEntrySize') === SUBMISSION_ENTRY_SHIFT &&
        registers.field('configuration', 'completionEntrySize') === COMPLETION_ENTRY_SHIFT,
      wake: () => this.#wake(),
      fail: (why) => this.#fail(why),
      fault: (command, isAdmin) => commandFault(this.#options.faults, this.#name, command, isAdmin),
    });
    registers.setField('status', 'ready', 1);
  }

  /** Without the admin queue, which is among those that it was given. */
  get ioQueues(): number {
    return Math.min(this.#given('queues'), this.#options.queuePairs) - 1;
  }

  get vectors(): number {
    return Math.min(this.#given('interrupts'), this.#port.vectors);
  }

  #given(type: 'queues' | 'interrupts'): number {
    const { subsystem } = this.#options;
    return subsystem.secondaries[this.#port.index]?.[type] ?? subsystem.ofPrimary(type);
  }

  #disable(): void {
    this.#forgetShutdown();
    this.#stop();
    if (this.#isPrimary) {
      this.#options.subsystem.primaryWasDisabled();
    }
    this.#features.reset();
    this.#events.reset();
  }

  #stop(): void {
    this.#work?.stop();
    this.#work = undefined;
  }

  /** Controller Fatal Status: nothing goes on until the host resets it. */
  #fail(why: string): void {
    this.#stop();
    this.#registers.setField('status', 'fatal', 1);
    this.#port.log('warn', `controller fatal status: ${why}`);
  }

  get #isPrimary(): boolean {
    return this.#port.index === PF_INDEX;
  }

  /** As the backend calls the function. */
  get #name(): string {
    return this.#isPrimary ? 'pf' : `vf${this.#port.index}`;
  }

  #wake(): void {
    if (!this.#isWorking) {
      this.#isWorking = true;
      this.#port.work((isOver) => {
        this.#isWorking = this.#work?.step(isOver) ?? false;
        return this.#isWorking;
      });
    }
  }
}
