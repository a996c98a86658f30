// One backend as the glue sees it: its announcements, and the order in which the guest is paused, slots are placed
// and the guest goes on. Every announcement is answered, and an enable that the backend never ends is ended here.
import { Errno } from '../../protocol/errno.ts';
import type {
  EnableBeginEvent,
  EnableEndEvent,
  HotplugEvent,
  VfPlugEvent,
  VfUnplugEvent,
} from '../client/hotplug.ts';
import type { BusNumbers, QemuFunction } from './devices.ts';
import type { GuestPause, Hold } from './guest-pause.ts';
import type { Log } from './log.ts';
import type { Monitor } from './monitor.ts';
import type { PlacementMemory } from './placement.ts';
import { slotOffset } from './topology.ts';

/** What a VfioUserClient gives of its hot-plug channel. */
export interface HotplugSource {
  hotplugEvents(): AsyncIterable<HotplugEvent>;
  close(): void;
}

/** How one enable went; times in milliseconds. */
export interface EnableTiming {
  readonly backend: string;
  readonly generation: number;
  readonly outcome: 'enabled' | 'failed' | 'abandoned';
  /** VFs that were placed, and the monitor commands that took. */
  readonly placedVfs: number;
  readonly placementCommands: number;
  readonly placementMilliseconds: number;
  /** Until QEMU had stopped the guest. */
  readonly stopMilliseconds: number;
  /** Of the pause, what was neither QEMU nor this process: the backend bringing its VFs up. */
  readonly backendMilliseconds: number;
  readonly contMilliseconds: number;
  /** The guest stood still for this long; 0 where it was found paused. */
  readonly pauseMilliseconds: number;
  readonly monitorCommands: number;
}

/** What all backends of one QEMU share. */
export interface SharedQemu {
  readonly monitor: Monitor;
  readonly pause: GuestPause;
  readonly memory: PlacementMemory;
  readonly buses: BusNumbers;
  readonly log: Log;
  /** Where the functions are; found again after a reconnect. */
  functions(): readonly QemuFunction[];
  onTiming(timing: EnableTiming): void;
}

interface OpenEnable {
  readonly generation: number;
  readonly hold: Hold;
  readonly limit: NodeJS.Timeout;
  placedVfs: number;
  placementCommands: number;
  placementMilliseconds: number;
}

export class BackendChannel {
  /** The PF's socket; names the backend in messages. */
  readonly name: string;
  readonly #source: HotplugSource;
  readonly #qemu: SharedQemu;
  readonly #findPf: () => QemuFunction;
  readonly #limitMilliseconds: number;
  #enable: OpenEnable | undefined;
  #abandoned = -1;
  /** Routing ID offset of each VF that was plugged. */
  readonly #offsets = new Map<number, number>();
  #ending: Promise<unknown> = Promise.resolve();

  constructor(
    name: string,
    source: HotplugSource,
    qemu: SharedQemu,
    findPf: () => QemuFunction,
    limitMilliseconds: number,
  ) {
    this.name = name;
    this.#source = source;
    this.#qemu = qemu;
    this.#findPf = findPf;
    this.#limitMilliseconds = limitMilliseconds;
  }

  /** Serves the backend until it goes away; resolves then, with the guest running on. */
  async serve(): Promise<void> {
    for await (const event of this.#source.hotplugEvents()) {
      // Not awaited: what belongs together is ordered by the queue of the pause, and several unplugs share one pause.
      this.#handle(event);
    }
    this.#endEnable('abandoned');
    await this.#ending;
  }

  /** Lets the guest go on and the backend go. */
  async close(): Promise<void> {
    this.#endEnable('abandoned');
    await this.#ending;
    this.#source.close();
  }

  #handle(event: HotplugEvent): void {
    switch (event.kind) {
      case 'enableBegin':
        this.#begin(event);
        break;
      case 'vfPlug':
        void this.#plug(event);
        break;
      case 'vfUnplug':
        void this.#unplug(event);
        break;
      case 'enableEnd':
        this.#end(event);
        break;
    }
  }

  #begin(event: EnableBeginEvent): void {
    const { generation, numVfs } = event.message;
    this.#endEnable('abandoned');
    const hold = this.#qemu.pause.hold();
    const limit = setTimeout(() => this.#giveUp(generation), this.#limitMilliseconds);
    const enable = {
      generation,
      hold,
      limit,
      placedVfs: 0,
      placementCommands: 0,
      placementMilliseconds: 0,
    };
    this.#enable = enable;
    this.#qemu.log.debug({ backend: this.name, generation, numVfs }, 'the guest enables VFs');
    // At once, so that it comes before the VFs: a backend need not wait for the answer before it plugs them.
    this.#lookUpBus();
    hold.paused.then(
      () => event.done(),
      (error: Error) => {
        clearTimeout(limit);
        if (this.#enable === enable) this.#enable = undefined;
        this.#abandoned = generation;
        this.#qemu.log.error(
          { backend: this.name, generation },
          `the guest could not be paused, so its VFs cannot be enabled: ${error.message}`,
        );
        event.refuse(Errno.EIO, `the guest could not be paused: ${error.message}`);
      },
    );
  }

  /** The guest may have numbered its buses anew. Asked while the backend brings its VFs up, so it costs no time. */
  #lookUpBus(): void {
    const { pause, buses, monitor, log } = this.#qemu;
    if (this.#pf()?.bus.bridge === undefined) return;
    pause
      .writePorts(async () => {
        await buses.refresh(monitor);
        return [];
      })
      .catch((error: Error) => log.warn({ backend: this.name }, error.message));
  }

  async #plug(event: VfPlugEvent): Promise<void> {
    const { vfIndex, generation, routingIdOffset } = event.message;
    if (this.#abandoned === generation) {
      event.refuse(Errno.ETIMEDOUT, 'the glue has given this enable up');
      return;
    }
    this.#offsets.set(vfIndex, routingIdOffset);
    const enable = this.#enable;
    const hold = enable === undefined ? this.#qemu.pause.hold() : undefined;
    try {
      await this.#place(event, enable);
      event.done();
    } catch (error) {
      const { message } = error as Error;
      this.#qemu.log.error(
        { backend: this.name, vfIndex, generation },
        `the VF could not be placed in QEMU: ${message}`,
      );
      event.refuse(Errno.EIO, message);
    } finally {
      await hold?.release();
    }
  }

  async #place(event: VfPlugEvent, enable: OpenEnable | undefined): Promise<void> {
    const { memory, pause } = this.#qemu;
    const { routingIdOffset, bars, placementLost } = event.message;
    let routingId = -1;
    let began = 0;
    try {
      let carriedOut = (): void => {};
      let commands = 0;
      await pause.writePorts(async () => {
        began = performance.now();
        const slot = this.#routingId(routingIdOffset);
        if (placementLost) memory.slotReset(slot);
        const plan = memory.place(slot, bars);
        carriedOut = plan.carriedOut;
        commands = plan.writes.length;
        routingId = slot;
        return plan.writes;
      });
      carriedOut();
      if (enable === undefined) return;
      enable.placedVfs++;
      enable.placementCommands += commands;
      enable.placementMilliseconds += performance.now() - began;
    } catch (error) {
      if (routingId >= 0) memory.uncertain(routingId);
      throw error;
    }
  }

  async #unplug(event: VfUnplugEvent): Promise<void> {
    const { vfIndex } = event.message;
    const { pause, memory, log } = this.#qemu;
    // A VF that this glue has not placed may be the work of the one before it.
    const offset = this.#offsets.get(vfIndex) ?? slotOffset(vfIndex);
    const hold = pause.hold();
    try {
      await pause.writePorts(async () => memory.disable(this.#routingId(offset)));
      event.done();
    } catch (error) {
      const { message } = error as Error;
      log.error({ backend: this.name, vfIndex }, `the VF stays visible in QEMU: ${message}`);
      event.refuse(Errno.EIO, message);
    } finally {
      await hold.release();
    }
  }

  #end(event: EnableEndEvent): void {
    const { outcome, text, generation } = event.message;
    if (outcome !== 'enabled') {
      this.#qemu.log.warn({ backend: this.name, generation }, `no VFs were enabled: ${text}`);
    }
    this.#endEnable(outcome);
  }

  #giveUp(generation: number): void {
    if (this.#enable?.generation !== generation) return;
    this.#abandoned = generation;
    this.#qemu.log.error(
      { backend: this.name, generation },
      `the backend did not finish enabling VFs within ${this.#limitMilliseconds} ms; the guest runs on without them`,
    );
    this.#endEnable('abandoned');
  }

  #endEnable(outcome: EnableTiming['outcome']): void {
    const enable = this.#enable;
    if (enable === undefined) return;
    this.#enable = undefined;
    clearTimeout(enable.limit);
    this.#ending = enable.hold.release().then((pause) => {
      // Undefined where another backend still needs the guest paused.
      if (pause === undefined) return;
      const { placedVfs, placementCommands, placementMilliseconds } = enable;
      const { stopMilliseconds, contMilliseconds } = pause;
      const ours = stopMilliseconds + placementMilliseconds + contMilliseconds;
      this.#qemu.onTiming({
        backend: this.name,
        generation: enable.generation,
        outcome,
        placedVfs,
        placementCommands,
        placementMilliseconds,
        stopMilliseconds,
        backendMilliseconds: Math.max(0, pause.pauseMilliseconds - ours),
        contMilliseconds,
        pauseMilliseconds: pause.paused ? pause.pauseMilliseconds : 0,
        monitorCommands: pause.monitorCommands,
      });
    });
  }

  #pf(): QemuFunction | undefined {
    try {
      return this.#findPf();
    } catch {
      return undefined;
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
