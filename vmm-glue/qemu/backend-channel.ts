// One backend as the glue sees it: its announcements, and the order in which the guest is paused, slots are placed
// and the guest goes on. Every announcement is answered, and an enable that the backend never ends is ended here.
import { Errno } from '../../protocol/errno.ts';
import type { VfPlacement } from '../../protocol/hotplug/codec.ts';
import type {
  EnableBeginEvent,
  EnableEndEvent,
  HotplugEvent,
  VfPlugEvent,
} from '../client/hotplug.ts';
import type { QemuFunction } from './devices.ts';
import type { Hold, PauseTiming } from './guest-pause.ts';
import { type PlacerQemu, SlotPlacer } from './slot-placer.ts';

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
  /** VFs that were placed, and the monitor commands that took; some are placed while the backend brings them up. */
  readonly placedVfs: number;
  readonly placementCommands: number;
  readonly placementMilliseconds: number;
  /** Until QEMU had stopped the guest. */
  readonly stopMilliseconds: number;
  /** Of the pause, what QEMU was not busy with: waiting for the backend to bring its VFs up. */
  readonly backendMilliseconds: number;
  readonly contMilliseconds: number;
  /** The guest stood still for this long; 0 where it was found paused, or never had to be. */
  readonly pauseMilliseconds: number;
  /** Of that, how long the guest's CPUs stood still, by QEMU's own account. */
  readonly standstillMilliseconds: number;
  readonly monitorCommands: number;
}

/** What all backends of one QEMU share. */
export interface SharedQemu extends PlacerQemu {
  onTiming(timing: EnableTiming): void;
}

interface OpenEnable {
  readonly event: EnableBeginEvent;
  readonly limit: NodeJS.Timeout;
  /** Ends the time that the guest is given before it is paused. */
  readonly stopTimer: NodeJS.Timeout | undefined;
  /** Since QEMU was asked to pause the guest. */
  hold: Hold | undefined;
  /** VFs whose slots were placed by what EnableBegin says. */
  readonly prepared: Set<number>;
  /** VFs that were announced and placed. */
  readonly plugged: Set<number>;
  placementCommands: number;
  placementMilliseconds: number;
}

/** Software waits so long between VF Enable and its first look at a VF (PCIe 6.0, 9.3.3.3.1). */
const GUEST_WAIT_MILLISECONDS = 100;
/** A stop is asked for so long before that is over: it has taken up to 33 ms on hosts that are emulated in software. */
const STOP_ROOM_MILLISECONDS = 40;

/** Of an enable that ended before the guest had to be paused. */
const NO_PAUSE: PauseTiming = {
  paused: false,
  stopMilliseconds: 0,
  contMilliseconds: 0,
  pauseMilliseconds: 0,
  standstillMilliseconds: 0,
  monitorCommands: 0,
};

export class BackendChannel {
  /** The PF's socket; names the backend in messages. */
  readonly name: string;
  readonly #source: HotplugSource;
  readonly #qemu: SharedQemu;
  readonly #placer: SlotPlacer;
  readonly #limitMilliseconds: number;
  #enable: OpenEnable | undefined;
  #abandoned = -1;
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
    this.#placer = new SlotPlacer(qemu, findPf);
    this.#limitMilliseconds = limitMilliseconds;
  }

  /** Serves the backend until it goes away; resolves then, with the guest running on. */
  async serve(): Promise<void> {
    for await (const event of this.#source.hotplugEvents()) {
      // Not awaited: what belongs together is ordered by the queue of the pause.
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
        // QEMU holds nothing of a VF: the slot keeps its place, where the backend answers reads with all-ones.
        event.done();
        break;
      case 'enableEnd':
        this.#end(event);
        break;
    }
  }

  #begin(event: EnableBeginEvent): void {
    const { generation, numVfs } = event.message;
    this.#endEnable('abandoned');
    const runOn = this.#runOnMilliseconds(event);
    const enable: OpenEnable = {
      event,
      limit: setTimeout(() => this.#giveUp(generation), this.#limitMilliseconds),
      stopTimer: runOn === 0 ? undefined : setTimeout(() => this.#pauseFor(enable), runOn),
      hold: undefined,
      prepared: new Set(),
      plugged: new Set(),
      placementCommands: 0,
      placementMilliseconds: 0,
    };
    this.#enable = enable;
    this.#qemu.log.debug({ backend: this.name, generation, numVfs }, 'the guest enables VFs');
    if (runOn === 0) this.#pauseFor(enable);
    else event.done();
  }

  /** How long the guest may go on: it waits for its VFs by itself, and so does the backend. */
  #runOnMilliseconds({ message }: EnableBeginEvent): number {
    if (this.#qemu.pause.isNeeded) return 0;
    const isSlow = (message.readyAfterMilliseconds ?? 0) >= GUEST_WAIT_MILLISECONDS;
    return isSlow ? GUEST_WAIT_MILLISECONDS - STOP_ROOM_MILLISECONDS : 0;
  }

  /**
   * EnableBegin is answered as soon as QEMU has been asked to pause the guest, if not before: the backend keeps the
   * guest's write to VF Enable waiting for that, and QEMU can do nothing else meanwhile.
   */
  #pauseFor(enable: OpenEnable): void {
    clearTimeout(enable.stopTimer);
    const hold = this.#qemu.pause.hold();
    enable.hold = hold;
    void hold.asked.then(() => enable.event.done());
    hold.paused.catch((error: Error) => this.#cannotPause(enable, error));
    // The guest may have numbered its buses anew; while the backend is not ready, asking costs no time.
    this.#placer.lookUpBus();
    this.#prepare(enable);
  }

  /** EnableBegin may have been answered already: what counts is that every VfPlug of this enable is refused. */
  #cannotPause(enable: OpenEnable, error: Error): void {
    const { generation } = enable.event.message;
    clearTimeout(enable.limit);
    if (this.#enable === enable) this.#enable = undefined;
    this.#abandoned = generation;
    this.#qemu.log.error(
      { backend: this.name, generation },
      `the guest could not be paused, so its VFs cannot be enabled: ${error.message}`,
    );
    enable.event.refuse(Errno.EIO, `the guest could not be paused: ${error.message}`);
  }

  /** Places the slots of VFs that are still coming up, where the backend has said already where they will be. */
  #prepare(enable: OpenEnable): void {
    // All at once, so that no VfPlug comes in between.
    for (const [vfIndex, placement] of (enable.event.message.placements ?? []).entries()) {
      this.#place(enable, placement).then(
        () => {
          enable.prepared.add(vfIndex);
          this.#givePortBack(enable);
        },
        // When the VF is announced this is tried again, and then the backend gets to know.
        (error: Error) =>
          this.#qemu.log.debug({ backend: this.name, vfIndex }, `not placed yet: ${error.message}`),
      );
    }
  }

  async #plug(event: VfPlugEvent): Promise<void> {
    const { vfIndex, generation } = event.message;
    if (this.#abandoned === generation) {
      event.refuse(Errno.ETIMEDOUT, 'the glue has given this enable up');
      return;
    }
    const enable = this.#enable;
    if (enable !== undefined && enable.hold === undefined) this.#pauseFor(enable);
    const hold = enable === undefined ? this.#qemu.pause.hold() : undefined;
    try {
      if (enable === undefined) await this.#placer.place(event.message, event);
      else await this.#place(enable, event.message);
      event.done();
      enable?.plugged.add(vfIndex);
      if (enable !== undefined) this.#givePortBack(enable);
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

  async #place(enable: OpenEnable, placement: VfPlacement): Promise<void> {
    let began = 0;
    const isWanted = (): boolean => {
      began = performance.now();
      return this.#enable === enable;
    };
    const commands = await this.#placer.place(placement, enable, isWanted);
    enable.placementCommands += commands;
    enable.placementMilliseconds += performance.now() - began;
  }

  /** Once every VF is placed, nothing more is expected to be written. */
  #givePortBack(enable: OpenEnable): void {
    const placed = new Set([...enable.prepared, ...enable.plugged]);
    if (placed.size >= enable.event.message.numVfs) this.#qemu.pause.givePortBack();
  }

  #end(event: EnableEndEvent): void {
    const { outcome, text, generation } = event.message;
    if (outcome !== 'enabled') {
      this.#qemu.log.warn({ backend: this.name, generation }, `no VFs were enabled: ${text}`);
    }
    this.#endEnable(outcome);
  }

  #giveUp(generation: number): void {
    if (this.#enable?.event.message.generation !== generation) return;
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
    clearTimeout(enable.stopTimer);
    if (enable.hold === undefined) this.#report(enable, outcome, NO_PAUSE);
    else this.#ending = Promise.all([this.#ending, this.#release(enable, enable.hold, outcome)]);
  }

  async #release(enable: OpenEnable, hold: Hold, outcome: EnableTiming['outcome']): Promise<void> {
    const pause = await hold.release();
    // Undefined where another backend still needs the guest paused.
    if (pause !== undefined) this.#report(enable, outcome, pause);
  }

  #report(enable: OpenEnable, outcome: EnableTiming['outcome'], pause: PauseTiming): void {
    const { placementCommands, placementMilliseconds } = enable;
    const { stopMilliseconds, contMilliseconds } = pause;
    const ours = stopMilliseconds + placementMilliseconds + contMilliseconds;
    this.#qemu.onTiming({
      backend: this.name,
      generation: enable.event.message.generation,
      outcome,
      placedVfs: enable.plugged.size,
      placementCommands,
      placementMilliseconds,
      stopMilliseconds,
      backendMilliseconds: Math.max(0, pause.pauseMilliseconds - ours),
      contMilliseconds,
      pauseMilliseconds: pause.paused ? pause.pauseMilliseconds : 0,
      standstillMilliseconds: pause.standstillMilliseconds,
      monitorCommands: pause.monitorCommands,
    });
  }
}
