// Puts the slots of one backend's VFs where the guest expects them: finds where QEMU has a slot, and has the port writes
// that placement.ts plans carried out while the guest is paused.
import type { VfPlacement } from '../../protocol/hotplug/codec.ts';
import type { Log } from '../../protocol/log.ts';
import type { BusNumbers, QemuFunction } from './devices.ts';
import type { GuestPause } from './guest-pause.ts';
import type { Monitor } from './monitor.ts';
import type { PlacementMemory } from './placement.ts';

/** What a placer needs of its QEMU; all backends of one QEMU share it. */
export interface PlacerQemu {
  readonly monitor: Monitor;
  readonly pause: GuestPause;
  readonly memory: PlacementMemory;
  readonly buses: BusNumbers;
  readonly log: Log;
  /** Where the functions are; found again after a reconnect. */
  functions(): readonly QemuFunction[];
}

export class SlotPlacer {
  readonly #qemu: PlacerQemu;
  readonly #findPf: () => QemuFunction;
  #busLookedUp: Promise<void> = Promise.resolve();

  /** `findPf` throws where QEMU does not have the PF any more. */
  constructor(qemu: PlacerQemu, findPf: () => QemuFunction) {
    this.#qemu = qemu;
    this.#findPf = findPf;
  }

  /** Asks for the bus numbers, once the guest is paused; what is placed from now on waits for the answer. */
  lookUpBus(): void {
    if (this.#isOnRootBus()) {
      return;
    }
    this.#busLookedUp = this.#qemu.pause
      .run(() => this.#refreshBuses())
      // Whatever needs the guest paused will say so.
      .catch(() => {});
  }

  /**
   * Places one VF's slot and lets it answer; gives the monitor commands that it took. `begin` is called when its turn
   * comes, and throws where it has become pointless. Rejects then, where there is no such slot, or QEMU refuses.
   */
  async place(
    { routingIdOffset, bars, placementLost }: VfPlacement,
    begin: () => void = () => {},
  ): Promise<number> {
    const { memory, pause } = this.#qemu;
    // As of now: a look that is asked for later comes after this in the queue.
    const busLookedUp = this.#busLookedUp;
    let commands = 0;
    await pause.writePorts(async () => {
      begin();
      await busLookedUp;
      const slot = this.#routingId(routingIdOffset);
      if (placementLost) {
        memory.slotReset(slot);
      }
      const plan = memory.place(slot, bars);
      commands = plan.writes.length;
      return plan;
    });
    return commands;
  }

  async #refreshBuses(): Promise<void> {
    const { buses, monitor, log } = this.#qemu;
    await buses.refresh(monitor).catch((error: Error) => log.warn(error.message));
  }

  #isOnRootBus(): boolean {
    try {
      return this.#findPf().bus.bridge === undefined;
    } catch {
      return true;
    }
  }

  /** Where QEMU has the slot of a VF. Throws where there is none. */
  #routingId(offset: number): number {
    const pf = this.#findPf();
    const bus = this.#qemu.buses.of(pf.bus);
    if (bus === undefined) {
      throw new Error(`the guest has not numbered the bus of ${pf.id} yet`);
    }
    const devfn = pf.devfn + offset;
    const hasSlot = this.#qemu
      .functions()
      .some((each) => each.devfn === devfn && each.bus.qomPath === pf.bus.qomPath);
    if (!hasSlot) {
      throw new Error(
        `QEMU has no vfio-user-pci device at ${(devfn >> 3).toString(16)}.${devfn & 7}, beside ${pf.id}: ` +
          'start it with the arguments that "vfio-user-sriov qemu-args" prints',
      );
    }
    return (bus << 8) | devfn;
  }
}
