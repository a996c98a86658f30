// The VFs of one backend as slots, dormant functions that QEMU has from the start: finds where QEMU has a slot, and has the
// writes that placement.ts plans carried out while the guest is paused.
import type { Clock } from '../../protocol/clock.ts';
import type { Slot, VfPlacement } from '../../protocol/hotplug/messages.ts';
import type { Log } from '../../protocol/log.ts';
import type { GuestPause } from '../choreography/guest-pause.ts';
import type { AskForSlots, VfPlugger } from '../choreography/vmm-control.ts';
import { BackgroundWrites } from './background-writes.ts';
import type { BusNumbers, QemuFunction } from './devices.ts';
import type { Monitor } from './monitor.ts';
import { PauseBudget, type PauseLimits } from './pause-budget.ts';
import { BridgeHeader } from './pci-registers.ts';
import { hasMemory, type PlacementMemory, type PlacementPlan } from './placement.ts';
import type { QemuGuest } from './qemu-guest.ts';

/** What a placer needs of its QEMU; all backends of one QEMU share it. */
export interface PlacerQemu {
  readonly monitor: Monitor;
  readonly guest: QemuGuest;
  readonly memory: PlacementMemory;
  readonly buses: BusNumbers;
  readonly log: Log;
  readonly clock: Clock;
  /** Where the functions are; found again after a reconnect. */
  functions(): readonly QemuFunction[];
}

const ASKED_AT_ONCE = 16;
/**
 * Of one pause: eight commands, of which two may be for looking where the bus is; and 5 ms, of which two are room for what takes
 * longer than before.
 */
const AHEAD: PauseLimits = { milliseconds: 3, commands: 6 };

export class SlotPlacer implements VfPlugger {
  readonly #qemu: PlacerQemu;
  readonly #pause: GuestPause;
  readonly #findPf: () => QemuFunction;
  readonly #budget = new PauseBudget(AHEAD);
  /** Whether the bus numbers are known, once that was asked. */
  #busLookedUp: Promise<boolean> = Promise.resolve(true);

  /** `findPf` throws where QEMU does not have the PF any more. */
  constructor(qemu: PlacerQemu, pause: GuestPause, findPf: () => QemuFunction) {
    this.#qemu = qemu;
    this.#pause = pause;
    this.#findPf = findPf;
  }

  /** Asks for the bus numbers, once the guest is paused: it may have numbered them anew. What is placed from now on waits. */
  prepare(): void {
    if (this.#isOnRootBus()) {
      return;
    }
    this.#busLookedUp = this.#pause
      .run(() => this.#refreshBuses())
      .then(() => true)
      // The guest was let run before that: it is looked up when it is needed.
      .catch(() => false);
  }

  /** Places the VF's slot and lets it answer; gives the monitor commands that it took. */
  async plug(vf: VfPlacement, begin: () => void): Promise<number> {
    const { guest } = this.#qemu;
    // As of now: a look that is asked for later comes after this in the queue.
    const busLookedUp = this.#busLookedUp;
    return await this.#pause.run(async () => {
      begin();
      if (!(await busLookedUp)) {
        await this.#refreshBuses();
      }
      return await guest.place(this.#plan(vf));
    });
  }

  plugAtOnce(vf: VfPlacement): boolean {
    return vf.placementLost !== true && hasMemory(vf.slotCommand) && !this.#mayNeedWrites(vf);
  }

  async placeAhead(ask: AskForSlots): Promise<void> {
    const { buses, guest, monitor, log, clock } = this.#qemu;
    const [pause, budget] = [this.#pause, this.#budget];
    const pauses = new BackgroundWrites({ pause, guest, log, clock, budget });
    const done = { slots: 0, commands: 0 };
    let areOthersKnown = false;
    for (let next = 0; ; ) {
      const slots = await ask(next, ASKED_AT_ONCE);
      if (slots.length === 0) {
        break;
      }
      next = slots.at(-1)!.vfIndex + 1;
      const wanting = slots.filter((slot) => this.#mayNeedWrites(slot));
      if (wanting.length > 0 && !areOthersKnown) {
        // It takes long where there are many functions.
        await buses.refresh(monitor);
        areOthersKnown = true;
      }
      const first = wanting.find((slot) => !this.#isTaken(slot));
      if (first !== undefined) {
        next = await pauses.inPause(() => this.#placeSome(ask, first.vfIndex, pauses, done));
      }
    }
    if (done.slots > 0) {
      log.info('slots are placed ahead of an enable', { ...done, ...pauses.taken });
    }
  }

  /** In one pause; gives the VF to go on with. What was asked for while the guest ran may not hold any more. */
  async #placeSome(
    ask: AskForSlots,
    firstVf: number,
    pauses: BackgroundWrites,
    done: { slots: number; commands: number },
  ): Promise<number> {
    const { guest } = this.#qemu;
    const [slots] = await Promise.all([ask(firstVf, ASKED_AT_ONCE), this.#lookAgain()]);
    for (const slot of slots) {
      const plan = this.#plan(slot);
      if (plan.writes.length > 0 && !this.#isTaken(slot)) {
        const commands = await pauses.step(guest.commandsFor(plan.writes), () => guest.place(plan));
        if (commands === undefined) {
          return slot.vfIndex;
        }
        done.commands += commands;
        done.slots++;
      }
    }
    return (slots.at(-1)?.vfIndex ?? firstVf) + 1;
  }

  /**
   * What the guest may have changed since it was looked at, before it stood still. On a bus of their own slots cover only what is
   * on it, and the backend knows of its PF: what the guest maps anywhere else lies over all of their port's window. So it is
   * enough there that the bus still has its number.
   */
  async #lookAgain(): Promise<void> {
    const { buses, guest, monitor } = this.#qemu;
    await guest.prepareWrites();
    const { bus, id } = this.#findPf();
    const isOurs = (other: string): boolean => other === id || other.startsWith(`${id}-vf`);
    const isOwn = bus.bridge !== undefined && buses.isOnlyOurs(bus, isOurs);
    const numbers = isOwn ? buses.wayTo(bus) : [];
    const read = await Promise.all(
      numbers.map(({ routingId }) => guest.readConfig(routingId, BridgeHeader.busNumbers)),
    );
    const isAsBefore = numbers.every(
      ({ secondary }, index) => ((read[index]! >>> 8) & 0xff) === secondary,
    );
    if (!isOwn || !isAsBefore) {
      await buses.refresh(monitor);
    }
  }

  /** Whether the guest has something there, which a slot that is mapped last would cover. */
  #isTaken({ bars }: Slot): boolean {
    const { id } = this.#findPf();
    return this.#qemu.buses.areTaken(bars, (other) => other.startsWith(`${id}-vf`));
  }

  /** By what is known while the guest runs. */
  #mayNeedWrites(slot: VfPlacement): boolean {
    try {
      return this.#plan(slot).writes.length > 0;
    } catch {
      // Its bus may have been numbered since that was asked last; what else is wrong, who places it tells.
      return true;
    }
  }

  #plan({ routingIdOffset, bars, placementLost, slotCommand }: VfPlacement): PlacementPlan {
    const { memory } = this.#qemu;
    const slot = this.#routingId(routingIdOffset);
    if (placementLost === true) {
      memory.slotReset(slot);
    }
    return memory.place(slot, bars, slotCommand);
  }

  /** Nothing to do: a slot that is placed shows its VF. */
  enabled(): void {}

  /** QEMU holds nothing of a VF: the slot keeps its place, where the backend answers reads with all-ones. */
  async unplug(): Promise<void> {}

  /** The backend answers a slot as VF Memory Space Enable wants it. */
  async memorySpace(): Promise<void> {}

  /** Slots are QEMU's for as long as it runs. */
  async detached(): Promise<void> {}

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
