// VFs in slots, with what may be mapped of them laid over: once an enable has ended and the guest runs, a carrier function is
// hot-added for each VF, on a root port that only carriers are on, and its BARs are put over the slot's. QEMU shows what was
// mapped last; where nothing lies, the slot shows through. So whatever fails here makes a VF slower, and never wrong.

import type { Timer } from '../../protocol/clock.ts';
import { ExclusiveQueue } from '../../protocol/exclusive-queue.ts';
import type { VfPlug } from '../../protocol/hotplug/messages.ts';
import { askUntil } from '../../protocol/retry.ts';
import type { GuestPause } from '../choreography/guest-pause.ts';
import type {
  AskForSlots,
  MemorySpace,
  TellTrapped,
  VfPlugger,
} from '../choreography/vmm-control.ts';
import { qomProperties } from './answers.ts';
import { BackgroundWrites } from './background-writes.ts';
import { CarrierPorts, NotNumbered, PERIPHERALS } from './carrier-ports.ts';
import {
  answering,
  type CarrierPort,
  canBeLaid,
  clearEvents,
  isWithinReach,
  layingSteps,
  powerOff,
  powerOn,
  raise,
} from './carrier-writes.ts';
import type { Config } from './config-access.ts';
import { PauseBudget, type PauseLimits } from './pause-budget.ts';
import type { PlacerQemu, SlotPlacer } from './slot-placer.ts';
import { carrierDeviceId, carrierPortId, VFS_OF_CARRIER_PORT } from './topology.ts';

export interface CarrierPluggerOptions {
  readonly qemu: PlacerQemu;
  readonly pause: GuestPause;
  readonly slots: SlotPlacer;
  /** Counts the backends of this QEMU from 0. */
  readonly index: number;
  /** Why QEMU has no ports for carriers, where that is known. */
  readonly whyTrapped: string | undefined;
  /** The first address at which the guest can have no memory. */
  readonly addressLimit: bigint;
  readonly trapped: TellTrapped;
}

/** Of one pause, which may take 20 ms: the rest is room for what takes longer than before. */
const LAYING: PauseLimits = { milliseconds: 16, commands: 8 };
/** QEMU lets go of what it has unplugged as soon as nothing of its own uses it. */
const LOOK_MILLISECONDS = 5;
const GONE_MILLISECONDS = 3_000;
/** A guest that wakes enables its VFs while it sets its ports up. */
const NUMBERING_MILLISECONDS = 15_000;
const NUMBERING_STEP_MILLISECONDS = 250;

/** The guest has disabled the VFs, or switched their memory off, while they were being laid. */
class NotWanted extends Error {
  override readonly name = 'NotWanted';
}

export class CarrierPlugger implements VfPlugger {
  readonly #options: CarrierPluggerOptions;
  readonly #ports: CarrierPorts;
  readonly #queue = new ExclusiveQueue();
  readonly #budget = new PauseBudget(LAYING);
  /** VFs that are plugged into their slots, by index. */
  readonly #plugged = new Map<number, VfPlug>();
  /** Ports that have carriers over VFs that are plugged. */
  readonly #laid = new Set<number>();
  /** VF Memory Space Enable. */
  #isMemoryOn = true;
  /** VFs whose slots do not answer; and those whose carriers were told not to. */
  #silent: ReadonlySet<number> = new Set();
  readonly #hidden = new Set<number>();
  /** What adding carriers took, of those that are being laid. */
  #addMilliseconds = 0;
  /** Looks anew whether the guest has numbered the ports' buses. */
  #again: Timer | undefined;
  /** Something of ours may be in QEMU. */
  #mayBeLaid: boolean;

  constructor(options: CarrierPluggerOptions) {
    this.#options = options;
    const { qemu, index } = options;
    this.#ports = new CarrierPorts({ ...qemu, index });
    this.#mayBeLaid = qemu.functions().some(({ id }) => isCarrier(id, index));
    if (this.#mayBeLaid) {
      // Of a glue that was killed, for VFs that are not known here.
      this.#attempt('the carriers of an earlier glue stay', () => this.#remove());
    }
  }

  prepare(): void {
    this.#options.slots.prepare();
  }

  async plug(vf: VfPlug, begin: () => void): Promise<number> {
    const commands = await this.#options.slots.plug(vf, begin);
    this.#plugged.set(vf.vfIndex, vf);
    return commands;
  }

  plugAtOnce(vf: VfPlug): boolean {
    const isPlugged = this.#options.slots.plugAtOnce(vf);
    if (isPlugged) {
      this.#plugged.set(vf.vfIndex, vf);
    }
    return isPlugged;
  }

  async placeAhead(ask: AskForSlots): Promise<void> {
    await this.#options.slots.placeAhead(ask);
  }

  enabled(): void {
    this.#isMemoryOn = true;
    this.#silent = new Set();
    this.#attemptLaying(() => this.#lay());
  }

  async unplug(vfIndex: number): Promise<void> {
    this.#plugged.delete(vfIndex);
    await this.#options.slots.unplug();
    await this.#queue.run(() => this.#remove());
  }

  async memorySpace({ enabled, silentVfs }: MemorySpace): Promise<void> {
    this.#isMemoryOn = enabled;
    this.#silent = new Set(silentVfs);
    if (enabled) {
      this.#attemptLaying(() => this.#layOrRaise());
    } else {
      await this.#queue.run(() => this.#remove());
    }
  }

  async detached(): Promise<void> {
    this.#plugged.clear();
    this.#again?.cancel();
    // Of a QEMU that has ended nothing is left.
    if (!this.#options.qemu.guest.isConnected) {
      return;
    }
    await this.#queue.run(() => this.#remove());
  }

  /** Nobody waits for it. */
  #attempt(what: string, job: () => Promise<void>): void {
    void this.#queue.run(job).catch((error: Error) => {
      this.#options.qemu.log.warn(`${what}: ${error.message}`);
    });
  }

  /** The same; anew where it came too early. */
  #attemptLaying(
    job: () => Promise<void>,
    deadline = this.#options.qemu.clock.now() + NUMBERING_MILLISECONDS,
  ): void {
    const { qemu, trapped } = this.#options;
    this.#again?.cancel();
    void this.#queue.run(job).catch((error: Error) => {
      if (error instanceof NotWanted) {
        return;
      }
      if (error instanceof NotNumbered && qemu.clock.now() < deadline) {
        this.#again = qemu.clock.after(NUMBERING_STEP_MILLISECONDS, () =>
          this.#attemptLaying(() => this.#layOrRaise(), deadline),
        );
        return;
      }
      qemu.log.warn(`VFs stay trapped: ${error.message}`);
      trapped(0, error.message);
    });
  }

  /** A carrier answers as its slot does; what the guest has mapped of a slot since may lie over it. */
  async #layOrRaise(): Promise<void> {
    if (this.#laid.size === 0) {
      await this.#lay();
      return;
    }
    await this.#ports.look();
    const writes = this.#backgroundWrites();
    for (const port of this.#laid) {
      await this.#follow(port, writes);
    }
  }

  async #follow(port: number, writes: BackgroundWrites): Promise<void> {
    const vfs = [...this.#plugged.values()].filter((vf) => portOf(vf) === port);
    const changed = vfs.filter((vf) => this.#isSilent(vf) !== this.#hidden.has(vf.vfIndex));
    for (let isRaised = false; !isRaised; ) {
      isRaised = await writes.run(async (config, hasRoom) => {
        const where = await this.#ports.find(port, config);
        while (changed.length > 0 && hasRoom(answering(where, changed[0]!, true))) {
          const vf = changed.shift()!;
          this.#checkWanted(vf);
          // The slot may change meanwhile: what was written counts.
          const isSilent = this.#isSilent(vf);
          await config.write(answering(where, vf, !isSilent));
          this.#noteHidden(vf, isSilent);
        }
        if (changed.length > 0 || !hasRoom(raise(where))) {
          return false;
        }
        await config.write(raise(where));
        return true;
      });
    }
  }

  #isSilent({ vfIndex }: VfPlug): boolean {
    return this.#silent.has(vfIndex);
  }

  #noteHidden({ vfIndex }: VfPlug, isHidden: boolean): void {
    if (isHidden) {
      this.#hidden.add(vfIndex);
    } else {
      this.#hidden.delete(vfIndex);
    }
  }

  async #lay(): Promise<void> {
    const { qemu, trapped } = this.#options;
    const layable = [...this.#plugged.values()].filter(canBeLaid);
    if (layable.length === 0) {
      return;
    }
    const most = await this.#mostMapped();
    if (most === 0) {
      trapped(0, this.#options.whyTrapped ?? 'QEMU has no ports for that (--vf-memory=trapped)');
      return;
    }
    if (!(await this.#ports.arePlugging())) {
      const why =
        'QEMU plugs by ACPI at the ports for that (acpi-pci-hotplug-with-bridge-support), where the guest would have to take part';
      qemu.log.info(`VFs stay trapped: ${why}`);
      trapped(0, why);
      return;
    }
    if (this.#plugged.size > most) {
      const why = `the first ${most} VFs are mapped, since each takes QEMU longer than the one before (--mapped-vfs)`;
      qemu.log.info(why);
      trapped(most, why);
    }
    const vfs = this.#withinReach(layable.filter(({ vfIndex }) => vfIndex < most));
    await this.#remove();
    if (vfs.length === 0) {
      return;
    }
    const began = qemu.clock.now();
    this.#addMilliseconds = 0;
    const writes = this.#backgroundWrites();
    await this.#ports.look();
    const ports = new Set(vfs.map(portOf));
    for (const port of ports) {
      this.#ports.checkNumbered(port);
    }
    for (const port of ports) {
      this.#mayBeLaid = true;
      const onPort = vfs.filter((vf) => portOf(vf) === port);
      try {
        await this.#layOn(port, onPort, writes);
      } catch (error) {
        await this.#remove();
        throw error;
      }
      this.#laid.add(port);
    }
    qemu.log.info('VFs are mapped', {
      vfs: vfs.length,
      milliseconds: Math.round(qemu.clock.now() - began),
      addMilliseconds: Math.round(this.#addMilliseconds),
      ...writes.taken,
    });
  }

  /** The first of them by their index, as far as the guest has them where QEMU can map memory: it would abort. */
  #withinReach(vfs: readonly VfPlug[]): readonly VfPlug[] {
    const { qemu, trapped, addressLimit } = this.#options;
    const sorted = vfs.toSorted((a, b) => a.vfIndex - b.vfIndex);
    const beyond = sorted.findIndex((vf) => !isWithinReach(vf, addressLimit));
    if (beyond < 0) {
      return sorted;
    }
    const { vfIndex } = sorted[beyond]!;
    const why = `the guest has VF ${vfIndex} at an address where no memory can be mapped`;
    qemu.log.info(why);
    trapped(vfIndex, why);
    return sorted.slice(0, beyond);
  }

  /** By the ports that QEMU was started with. */
  async #mostMapped(): Promise<number> {
    const there = new Set(await this.#peripherals());
    let ports = 0;
    while (there.has(carrierPortId(this.#options.index, ports))) {
      ports++;
    }
    return ports * VFS_OF_CARRIER_PORT;
  }

  /**
   * `vfs`: by their index, since function 0 is the first one's. QEMU keeps functions from the guest, and from config writes, until function 0 is there; then it takes no more. With the
   * port's interrupt off, the guest hears of none.
   */
  async #layOn(port: number, vfs: readonly VfPlug[], writes: BackgroundWrites): Promise<void> {
    const [first, ...others] = vfs;
    for (const vf of others) {
      await this.#add(port, vf, writes);
    }
    const where = await writes.run(async (config) => {
      const found = await this.#ports.find(port, config);
      this.#ports.checkNumbered(port);
      await config.write(powerOn(found));
      return found;
    });
    await this.#add(port, first!, writes);
    const check = (): void => this.#check(port, where, vfs);
    await writes.run(async (config) => {
      check();
      const status = await config.read(where.routingId, where.slotControl);
      await config.write(clearEvents(where, status));
    });
    const silent = this.#silent;
    await writes.write(
      layingSteps(where, vfs, ({ vfIndex }) => !silent.has(vfIndex)),
      check,
    );
    for (const vf of vfs) {
      this.#noteHidden(vf, silent.has(vf.vfIndex));
    }
  }

  /** Throws where there is no point in laying any more. */
  #check(port: number, where: CarrierPort, vfs: readonly VfPlug[]): void {
    this.#ports.check(port, where);
    for (const vf of vfs) {
      this.#checkWanted(vf);
    }
  }

  #checkWanted(vf: VfPlug): void {
    if (this.#plugged.get(vf.vfIndex) !== vf || !this.#isMemoryOn) {
      throw new NotWanted(`VF ${vf.vfIndex} is gone`);
    }
  }

  async #add(port: number, vf: VfPlug, writes: BackgroundWrites): Promise<void> {
    const { qemu, index } = this.#options;
    const { vfIndex, carrier } = vf;
    this.#checkWanted(vf);
    await writes.whileRunning(async () => {
      const began = qemu.clock.now();
      await qemu.monitor.execute('device_add', {
        driver: 'vfio-user-pci',
        id: carrierDeviceId(index, vfIndex),
        bus: carrierPortId(index, port),
        addr: `0.${vfIndex % VFS_OF_CARRIER_PORT}`,
        multifunction: true,
        socket: { type: 'unix', path: carrier!.socketPath },
      });
      this.#addMilliseconds += qemu.clock.now() - began;
    });
  }

  /** Takes every carrier out; resolves when QEMU has none. The guest has no part in it. */
  async #remove(): Promise<void> {
    if (!this.#mayBeLaid) {
      return;
    }
    const carriers = await this.#carriers();
    await this.#ports.look();
    const writes = this.#backgroundWrites();
    for (const port of new Set(carriers.map((vfIndex) => portOf({ vfIndex })))) {
      const onPort = carriers.filter((vfIndex) => portOf({ vfIndex }) === port);
      if (onPort.includes(port * VFS_OF_CARRIER_PORT)) {
        await writes.run((config) => this.#takeOut(port, config));
      } else {
        await this.#withdraw(onPort);
      }
    }
    await this.#untilGone();
    this.#laid.clear();
    this.#hidden.clear();
    this.#mayBeLaid = false;
  }

  /** Without function 0 the port counts as empty, and QEMU takes functions back as they were added, one by one. */
  async #withdraw(vfIndexes: readonly number[]): Promise<void> {
    const { qemu, index } = this.#options;
    for (const vfIndex of vfIndexes) {
      await qemu.monitor.execute('device_del', { id: carrierDeviceId(index, vfIndex) });
    }
  }

  async #untilGone(): Promise<void> {
    const left = await askUntil(
      () => this.#carriers(),
      ({ length }) => length === 0,
      {
        clock: this.#options.qemu.clock,
        patienceMilliseconds: GONE_MILLISECONDS,
        stepMilliseconds: LOOK_MILLISECONDS,
      },
    );
    if (left.length > 0) {
      throw new Error(`QEMU keeps the carriers of VFs ${left.join(', ')}`);
    }
  }

  /** The VFs that have a carrier in QEMU. */
  async #carriers(): Promise<number[]> {
    const { index } = this.#options;
    const names = await this.#peripherals();
    return names
      .filter((name) => isCarrier(name, index))
      .map((name) => Number(name.slice(carrierPrefix(index).length)));
  }

  async #peripherals(): Promise<string[]> {
    const { monitor } = this.#options.qemu;
    const all = await monitor.ask('qom-list', qomProperties, { path: PERIPHERALS });
    return all.map(({ name }) => name);
  }

  async #takeOut(port: number, config: Config): Promise<void> {
    await config.write(powerOff(await this.#ports.find(port, config)));
  }

  #backgroundWrites(): BackgroundWrites {
    const { pause, qemu } = this.#options;
    return new BackgroundWrites({ pause, ...qemu, budget: this.#budget });
  }
}

/** The port that a VF's carrier goes on. */
function portOf({ vfIndex }: Pick<VfPlug, 'vfIndex'>): number {
  return Math.floor(vfIndex / VFS_OF_CARRIER_PORT);
}

function carrierPrefix(index: number): string {
  return carrierDeviceId(index, 0).slice(0, -1);
}

function isCarrier(id: string, index: number): boolean {
  const prefix = carrierPrefix(index);
  return id.startsWith(prefix) && /^\d+$/.test(id.slice(prefix.length));
}
