// One backend as the glue sees it: its announcements. Each is answered, what an enable takes is done by enable.ts, and an
// enable that the backend never ends is ended here.
import { Errno } from '../../protocol/errno.ts';
import type {
  EnableBeginEvent,
  EnableEndEvent,
  HotplugEvent,
  VfPlugEvent,
} from '../client/hotplug.ts';
import type { QemuFunction } from './devices.ts';
import { Enable, type EnableTiming } from './enable.ts';
import { type PlacerQemu, SlotPlacer } from './slot-placer.ts';

/** What a VfioUserClient gives of its hot-plug channel. */
export interface HotplugSource {
  hotplugEvents(): AsyncIterable<HotplugEvent>;
  close(): void;
}

/** What all backends of one QEMU share. */
export interface SharedQemu extends PlacerQemu {
  onTiming(timing: EnableTiming): void;
}

export class BackendChannel {
  /** The PF's socket; names the backend in messages. */
  readonly name: string;
  readonly #source: HotplugSource;
  readonly #qemu: SharedQemu;
  readonly #placer: SlotPlacer;
  readonly #limitMilliseconds: number;
  #enable: Enable | undefined;
  /** Ends an enable that the backend never ends. */
  #limit: NodeJS.Timeout | undefined;
  /** Generation of the last enable that was given up. */
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
    this.#limit = setTimeout(() => this.#giveUp(generation), this.#limitMilliseconds);
    this.#qemu.log.debug('the guest enables VFs', { backend: this.name, generation, numVfs });
    this.#enable = new Enable(event, {
      backend: this.name,
      qemu: this.#qemu,
      placer: this.#placer,
      cannotPause: (error) => this.#cannotPause(event, error),
      onTiming: (timing) => this.#qemu.onTiming(timing),
    });
  }

  /** EnableBegin may have been answered already: what counts is that every VfPlug of this enable is refused. */
  #cannotPause(event: EnableBeginEvent, error: Error): void {
    const { generation } = event.message;
    if (this.#enable?.generation === generation) {
      clearTimeout(this.#limit);
      this.#enable = undefined;
    }
    this.#abandoned = generation;
    this.#qemu.log.error(
      `the guest could not be paused, so its VFs cannot be enabled: ${error.message}`,
      { backend: this.name, generation },
    );
    event.refuse(Errno.EIO, `the guest could not be paused: ${error.message}`);
  }

  async #plug(event: VfPlugEvent): Promise<void> {
    const { vfIndex, generation } = event.message;
    if (this.#abandoned === generation) {
      event.refuse(Errno.ETIMEDOUT, 'the glue has given this enable up');
      return;
    }
    const enable = this.#enable;
    const hold = enable === undefined ? this.#qemu.pause.hold() : undefined;
    try {
      if (enable === undefined) {
        await this.#placer.place(event.message);
      } else {
        await enable.plug(vfIndex, event.message);
      }
      event.done();
      enable?.givePortBack();
    } catch (error) {
      const { message } = error as Error;
      // The slot of a VF that did not come up is nobody's concern.
      this.#qemu.log[enable?.isOver === true ? 'debug' : 'error'](
        `the VF could not be placed in QEMU: ${message}`,
        { backend: this.name, vfIndex, generation },
      );
      event.refuse(Errno.EIO, message);
    } finally {
      await hold?.release();
    }
  }

  #end(event: EnableEndEvent): void {
    const { outcome, text, generation } = event.message;
    if (outcome !== 'enabled') {
      this.#qemu.log.warn(`no VFs were enabled: ${text}`, { backend: this.name, generation });
    }
    this.#endEnable(outcome);
  }

  #giveUp(generation: number): void {
    if (this.#enable?.generation !== generation) {
      return;
    }
    this.#abandoned = generation;
    this.#qemu.log.error(
      `the backend did not finish enabling VFs within ${this.#limitMilliseconds} ms; the guest runs on without them`,
      { backend: this.name, generation },
    );
    this.#endEnable('abandoned');
  }

  #endEnable(outcome: EnableTiming['outcome']): void {
    const enable = this.#enable;
    if (enable === undefined) {
      return;
    }
    this.#enable = undefined;
    clearTimeout(this.#limit);
    this.#ending = Promise.all([this.#ending, enable.end(outcome)]);
  }
}
