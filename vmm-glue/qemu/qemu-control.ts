// A stock QEMU as the choreography sees it, over QMP: its guest, and the slots of each backend's VFs.

import type { Clock } from '../../protocol/clock.ts';
import type { Log } from '../../protocol/log.ts';
import type { GuestPause } from '../choreography/guest-pause.ts';
import type { TellTrapped, VfPlugger, VmmControl } from '../choreography/vmm-control.ts';
import { addressLimit } from './address-limit.ts';
import { CarrierPlugger } from './carrier-plugger.ts';
import { BusNumbers, findFunctions, findPf, type QemuFunction } from './devices.ts';
import { findConfigAccess } from './guest-machine.ts';
import type { Monitor } from './monitor.ts';
import type { PauseRecord } from './pause-record.ts';
import { PlacementMemory } from './placement.ts';
import { QemuGuest } from './qemu-guest.ts';
import { SharedRam } from './shared-ram.ts';
import { SlotPlacer } from './slot-placer.ts';
import { pfDeviceId } from './topology.ts';

export interface QemuControlOptions {
  readonly monitor: Monitor;
  readonly record: PauseRecord;
  readonly log: Log;
  readonly clock: Clock;
  /** The PF sockets of the backends, in the order of their devices' ids. */
  readonly socketPaths: readonly string[];
  /** Why QEMU has no ports for carriers, where that is known. */
  readonly whyTrapped: string | undefined;
  /** The guest's CPUs run, whoever let them. */
  resumed(): void;
  /** QEMU answers again, after the connection was lost. */
  reconnected(isSameQemu: boolean): Promise<void>;
}

const MIGRATION_BEGINS = 'setup';

export class QemuControl implements VmmControl {
  readonly guest: QemuGuest;
  readonly #options: QemuControlOptions;
  readonly #memory: PlacementMemory;
  readonly #ram: SharedRam;
  readonly #buses = new BusNumbers();
  #functions: readonly QemuFunction[] = [];

  constructor(options: QemuControlOptions) {
    const { monitor, record } = options;
    this.#options = options;
    this.guest = new QemuGuest(monitor, record);
    this.#ram = new SharedRam(monitor, options.log);
    this.#memory = new PlacementMemory(monitor.isFresh);
    monitor.listener = {
      machineReset: () => {
        this.#memory.machineReset();
        this.#buses.forget();
      },
      resumed: () => {
        this.#memory.guestRan();
        if (!this.guest.isStoppedByUs) {
          void this.#checkDevices();
        }
        options.resumed();
      },
      memoryChanged: () => void this.#ram.check(),
      migrating: (status) => this.#migrating(status),
      reconnected: (isSameQemu) => this.#reconnected(isSameQemu),
    };
  }

  /** Finds the backends' devices. Rejects with UserError where one is missing, and with the errors of QMP. */
  async findDevices(): Promise<void> {
    const { monitor, log } = this.#options;
    this.guest.useConfigAccess(await findConfigAccess(monitor, log));
    this.#functions = await findFunctions(monitor);
    for (const index of this.#options.socketPaths.keys()) {
      this.#findPf(index);
    }
    await this.#lookOut();
  }

  pluggerOf(index: number, pause: GuestPause, trapped: TellTrapped): VfPlugger {
    const { monitor, log, clock, whyTrapped } = this.#options;
    const qemu = {
      monitor,
      guest: this.guest,
      memory: this.#memory,
      buses: this.#buses,
      log,
      clock,
      functions: () => this.#functions,
    };
    const slots = new SlotPlacer(qemu, pause, () => this.#findPf(index));
    return new CarrierPlugger({
      ...{ qemu, pause, slots, index, whyTrapped, trapped },
      addressLimit: addressLimit(),
    });
  }

  #findPf(index: number): QemuFunction {
    return findPf(this.#functions, this.#options.socketPaths[index]!, pfDeviceId(index));
  }

  async #reconnected(isSameQemu: boolean): Promise<void> {
    const { monitor, log, reconnected } = this.#options;
    // Events of the time in between are lost.
    this.#memory.guestRan();
    if (!isSameQemu) {
      this.#memory.forgetAll(monitor.isFresh);
      this.#buses.forget();
      this.guest.useConfigAccess(await findConfigAccess(monitor, log));
    }
    await reconnected(isSameQemu);
    this.#functions = await findFunctions(monitor);
    await this.#lookOut();
  }

  /** Private RAM, and a QEMU that will not tell of a migration unless it is asked to. */
  async #lookOut(): Promise<void> {
    const { monitor, log } = this.#options;
    await this.#ram.check();
    try {
      const capabilities = [{ capability: 'events', state: true }];
      await monitor.execute('migrate-set-capabilities', { capabilities });
    } catch (error) {
      log.debug(`savevm and migrations go unnoticed: ${(error as Error).message}`);
    }
  }

  /**
   * Somebody has let the guest run. Where that was after a `loadvm`, which no event tells, QEMU has reset the devices, while
   * the rest of the guest is as it was saved: their BARs are mapped nowhere.
   */
  async #checkDevices(): Promise<void> {
    const { monitor, log, socketPaths } = this.#options;
    try {
      const pfs = [...socketPaths.keys()].map((index) => this.#findPf(index));
      const mapped = pfs.filter((pf) => this.#buses.isMapped(pf));
      await this.#buses.refresh(monitor);
      for (const { id } of mapped.filter((pf) => !this.#buses.isMapped(pf))) {
        log.error(
          `${id}: the device was reset behind the guest's back, as by loadvm: its BARs are gone, its registers read 0; ` +
            'reboot the guest',
        );
      }
    } catch (error) {
      log.debug(`whether the devices were reset is not known: ${(error as Error).message}`);
    }
  }

  /** QEMU (seen with 11.1) lets its devices be saved, and saves nothing of them. */
  #migrating(status: string): void {
    if (status !== MIGRATION_BEGINS) {
      return;
    }
    this.#options.log.error(
      'this machine is being saved or migrated: the SR-IOV device is not part of that, and will not work where it is ' +
        'loaded; disable VFs and unload the PF driver before, or reboot the guest after it',
    );
    // For what a loadvm is compared with.
    void this.#buses.refresh(this.#options.monitor).catch(() => {});
  }
}
