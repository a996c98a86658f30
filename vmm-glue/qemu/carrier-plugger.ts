// VFs in slots, with what may be mapped of them laid over: once an enable has ended and the guest runs, a carrier function is
// hot-added for each VF, on a root port that only carriers are on, and its BARs are put over the slot's. QEMU shows what was
// mapped last; where nothing lies, the slot shows through. So whatever fails here makes a VF slower, and never wrong.

import { ExclusiveQueue } from '../../protocol/exclusive-queue.ts';
import type { VfPlug } from '../../protocol/hotplug/codec.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import type { GuestPause } from '../choreography/guest-pause.ts';
import type { VfPlugger } from '../choreography/vmm-control.ts';
import { pciBuses, qomProperties } from './answers.ts';
import {
  type CarrierPort,
  canBeLaid,
  clearEvents,
  layingWrites,
  powerOff,
  powerOn,
} from './carrier-writes.ts';
import { withChildren } from './devices.ts';
import type { PortWrite } from './placement.ts';
import type { PlacerQemu, SlotPlacer } from './slot-placer.ts';
import { carrierDeviceId, carrierPortId } from './topology.ts';

export interface CarrierPluggerOptions {
  readonly qemu: PlacerQemu;
  readonly pause: GuestPause;
  readonly slots: SlotPlacer;
  /** Counts the backends of this QEMU from 0. */
  readonly index: number;
}

const FUNCTIONS_OF_PORT = 8;
const PERIPHERALS = '/machine/peripheral';
const CAPABILITIES_POINTER = 0x34;
const FIRST_CAPABILITY = 0x40;
const PCI_EXPRESS = 0x10;
const SLOT_CONTROL = 0x18;
const MOST_CAPABILITIES = 48;
/** QEMU lets go of what it has unplugged as soon as nothing of its own uses it. */
const LOOK_MILLISECONDS = 5;
const GONE_MILLISECONDS = 3_000;

export class CarrierPlugger implements VfPlugger {
  readonly #options: CarrierPluggerOptions;
  readonly #queue = new ExclusiveQueue();
  /** VFs that are plugged into their slots, by index. */
  readonly #plugged = new Map<number, VfPlug>();
  /** Something of ours may be in QEMU. */
  #mayBeLaid: boolean;

  constructor(options: CarrierPluggerOptions) {
    this.#options = options;
    const { qemu, index } = options;
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

  enabled(): void {
    this.#attempt('VFs stay trapped', () => this.#lay());
  }

  async unplug(vfIndex: number): Promise<void> {
    this.#plugged.delete(vfIndex);
    await this.#options.slots.unplug();
    await this.#queue.run(() => this.#remove());
  }

  async memorySpace(enabled: boolean): Promise<void> {
    if (enabled) {
      this.enabled();
    } else {
      await this.#queue.run(() => this.#remove());
    }
  }

  async detached(): Promise<void> {
    this.#plugged.clear();
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

  async #lay(): Promise<void> {
    const { index, qemu } = this.#options;
    const vfs = [...this.#plugged.values()].filter(canBeLaid);
    if (vfs.length === 0) {
      return;
    }
    await this.#remove();
    const began = performance.now();
    const there = await this.#peripherals();
    const ports = new Set(vfs.map(portOf));
    for (const port of ports) {
      if (!there.includes(carrierPortId(index, port))) {
        qemu.log.debug('VFs stay trapped: QEMU was started without --vf-memory=mapped');
        return;
      }
      this.#mayBeLaid = true;
      try {
        await this.#layOn(
          port,
          vfs.filter((vf) => portOf(vf) === port),
        );
      } catch (error) {
        await this.#remove();
        throw error;
      }
    }
    qemu.log.info('VFs are mapped', {
      vfs: vfs.length,
      milliseconds: Math.round(performance.now() - began),
    });
  }

  /** QEMU keeps functions from the guest, and from config writes, until function 0 is there; then it takes no more. */
  async #layOn(port: number, vfs: readonly VfPlug[]): Promise<void> {
    const { qemu, index } = this.#options;
    const [first, ...others] = vfs.toSorted((a, b) => a.vfIndex - b.vfIndex);
    for (const vf of others) {
      await this.#add(port, vf);
    }
    await this.#whilePaused(async () => {
      const where = await this.#find(port);
      if (where.secondaryBus === 0) {
        throw new Error(`the guest has not numbered the bus behind ${carrierPortId(index, port)}`);
      }
      await this.#write(powerOn(where));
      await this.#add(port, first!);
      const status = await qemu.guest.readConfig(where.routingId, where.slotControl);
      await this.#write([...clearEvents(where, status), ...layingWrites(where, vfs)]);
    });
  }

  async #add(port: number, { vfIndex, carrier }: VfPlug): Promise<void> {
    const { qemu, index } = this.#options;
    if (!this.#plugged.has(vfIndex)) {
      throw new Error(`VF ${vfIndex} is gone`);
    }
    await qemu.monitor.execute('device_add', {
      driver: 'vfio-user-pci',
      id: carrierDeviceId(index, vfIndex),
      bus: carrierPortId(index, port),
      addr: `0.${vfIndex % FUNCTIONS_OF_PORT}`,
      multifunction: true,
      socket: { type: 'unix', path: carrier!.socketPath },
    });
  }

  /** Takes every carrier out; resolves when QEMU has none. The guest has no part in it. */
  async #remove(): Promise<void> {
    if (!this.#mayBeLaid) {
      return;
    }
    const ports = new Set((await this.#carriers()).map((vfIndex) => portOf({ vfIndex })));
    if (ports.size > 0) {
      await this.#whilePaused(async () => {
        for (const port of ports) {
          await this.#write(powerOff(await this.#find(port)));
        }
      });
      await this.#untilGone();
    }
    this.#mayBeLaid = false;
  }

  async #untilGone(): Promise<void> {
    const deadline = processClock.now() + GONE_MILLISECONDS;
    for (let left = await this.#carriers(); left.length > 0; left = await this.#carriers()) {
      if (processClock.now() >= deadline) {
        throw new Error(`QEMU keeps the carriers of VFs ${left.join(', ')}`);
      }
      await this.#qemuWorks();
    }
  }

  async #qemuWorks(): Promise<void> {
    await new Promise<void>((resolve) => {
      processClock.after(LOOK_MILLISECONDS, resolve);
    });
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

  async #whilePaused(job: () => Promise<void>): Promise<void> {
    const { pause } = this.#options;
    const hold = pause.hold();
    try {
      await hold.paused;
      await pause.run(job);
    } finally {
      await hold.release();
    }
  }

  async #write(writes: readonly PortWrite[]): Promise<void> {
    const nothing = (): void => {};
    await this.#options.qemu.guest.writePorts({ writes, carriedOut: nothing, failed: nothing });
  }

  /** Where the guest has a port now. Only while it stands still. */
  async #find(port: number): Promise<CarrierPort> {
    const { qemu, index } = this.#options;
    const id = carrierPortId(index, port);
    const buses = await qemu.monitor.ask('query-pci', pciBuses);
    const devices = buses.flatMap((bus) => bus.devices ?? []).flatMap(withChildren);
    const found = devices.find((device) => device.qdev_id === id);
    if (found === undefined) {
      throw new Error(`QEMU has no ${id}`);
    }
    const secondaryBus = found.pci_bridge?.bus.secondary ?? 0;
    const routingId = (found.bus << 8) | (found.slot << 3) | found.function;
    return { routingId, secondaryBus, slotControl: await this.#slotControl(id, routingId) };
  }

  async #slotControl(id: string, routingId: number): Promise<number> {
    const { guest } = this.#options.qemu;
    let at = (await guest.readConfig(routingId, CAPABILITIES_POINTER)) & 0xfc;
    for (let seen = 0; at >= FIRST_CAPABILITY && seen < MOST_CAPABILITIES; seen++) {
      const header = await guest.readConfig(routingId, at);
      if ((header & 0xff) === PCI_EXPRESS) {
        return at + SLOT_CONTROL;
      }
      at = (header >>> 8) & 0xfc;
    }
    throw new Error(`${id} has no PCI Express capability`);
  }
}

/** The port that a VF's carrier goes on. */
function portOf({ vfIndex }: Pick<VfPlug, 'vfIndex'>): number {
  return Math.floor(vfIndex / FUNCTIONS_OF_PORT);
}

function carrierPrefix(index: number): string {
  return carrierDeviceId(index, 0).slice(0, -1);
}

function isCarrier(id: string, index: number): boolean {
  const prefix = carrierPrefix(index);
  return id.startsWith(prefix) && /^\d+$/.test(id.slice(prefix.length));
}
