// One backend as the glue sees it: its announcements. Each is answered, what an enable takes is done by enable.ts, and an
// enable that the backend never ends is ended here.
import type { Clock, Timer } from '../../protocol/clock.ts';
import { Errno } from '../../protocol/errno.ts';
import type { GlueEvents, Slot, VfsTrapped } from '../../protocol/hotplug/messages.ts';
import { SLOTS_ANSWER_MILLISECONDS } from '../../protocol/hotplug/timing.ts';
import type { Log } from '../../protocol/log.ts';
import { within } from '../../protocol/retry.ts';
import type {
  EnableBeginEvent,
  EnableEndEvent,
  HotplugEvent,
  VfMemorySpaceEvent,
  VfPlugEvent,
  VfUnplugEvent,
} from '../client/hotplug.ts';
import { Enable, type EnableTiming } from './enable.ts';
import type { GuestPause } from './guest-pause.ts';
import type { VfPlugger } from './vmm-control.ts';

/** What a VfioUserClient gives of its hot-plug channel. */
export interface HotplugSource {
  hotplugEvents(): AsyncIterable<HotplugEvent>;
  /** Takes what was done in the VMM, for the backend's trace. */
  reportGlueEvents?(events: GlueEvents): void;
  /** Takes why nothing is mapped of VFs, for the backend's status. */
  reportTrapped?(message: VfsTrapped): void;
  /** Calls back each time when slots of VFs that are off are not where they belong. */
  whenSlotsMoved?(callback: () => void): void;
  /** Where slots of VFs that are off belong; none where VFs are on. */
  slots?(firstVf: number, count: number): Promise<readonly Slot[]>;
  close(): void;
}

export interface BackendChannelOptions {
  /** The PF's socket; names the backend in messages. */
  readonly name: string;
  readonly source: HotplugSource;
  readonly pause: GuestPause;
  readonly plugger: VfPlugger;
  readonly clock: Clock;
  readonly log: Log;
  /** The longest that an enable may keep the guest paused. */
  readonly limitMilliseconds: number;
  onTiming(timing: EnableTiming): void;
}

export class BackendChannel {
  readonly #options: BackendChannelOptions;
  #enable: Enable | undefined;
  /** Ends an enable that the backend never ends. */
  #limit: Timer | undefined;
  /** Generation of the last enable that was given up. */
  #abandoned = -1;
  #ending: Promise<unknown> = Promise.resolve();
  /** Generation of the last enable. */
  #generation = 0;
  /** Slots are placed ahead of an enable, one round at a time. */
  #ahead: Promise<void> = Promise.resolve();
  #isOver = false;

  constructor(options: BackendChannelOptions) {
    this.#options = options;
  }

  get name(): string {
    return this.#options.name;
  }

  /** Serves the backend until it goes away; resolves then, with the guest running on. */
  async serve(): Promise<void> {
    this.#options.source.whenSlotsMoved?.(() => this.#placeAhead());
    for await (const event of this.#options.source.hotplugEvents()) {
      // Not awaited: what belongs together is ordered by the queue of the pause.
      this.#handle(event);
    }
    await this.#finish();
  }

  /** Lets the guest go on and the backend go. */
  async close(): Promise<void> {
    await this.#finish();
    this.#options.source.close();
  }

  async #finish(): Promise<void> {
    this.#isOver = true;
    this.#endEnable('abandoned');
    await this.#ending;
    await this.#ahead;
    await this.#detach();
  }

  /** Nothing is mapped of the VFs from `firstVf` on. */
  trapped(firstVf: number, text: string): void {
    const generation = this.#generation;
    if (generation > 0) {
      this.#options.source.reportTrapped?.({ generation, firstVf, text });
    }
  }

  async #detach(): Promise<void> {
    await this.#options.plugger.detached().catch(({ message }: Error) => {
      this.#options.log.warn(`the VFs are still in the VMM: ${message}`, { backend: this.name });
    });
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
      case 'vfMemorySpace':
        void this.#memorySpace(event);
        break;
      case 'enableEnd':
        this.#end(event);
        break;
    }
  }

  #begin(event: EnableBeginEvent): void {
    const { generation, numVfs } = event.message;
    this.#endEnable('abandoned');
    this.#generation = generation;
    const { clock, limitMilliseconds, log, pause, plugger } = this.#options;
    this.#limit = clock.after(limitMilliseconds, () => this.#giveUp(generation));
    log.debug('the guest enables VFs', { backend: this.name, generation, numVfs });
    this.#enable = new Enable(event, {
      backend: this.name,
      pause,
      plugger,
      clock,
      cannotPause: (error) => this.#cannotPause(event, error),
      onTiming: (timing) => this.#options.onTiming(timing),
    });
  }

  /** EnableBegin may have been answered already: what counts is that every VfPlug of this enable is refused. */
  #cannotPause(event: EnableBeginEvent, error: Error): void {
    const { generation } = event.message;
    if (this.#enable?.generation === generation) {
      this.#limit?.cancel();
      this.#enable = undefined;
    }
    this.#abandoned = generation;
    this.#options.log.error(
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
    const { pause, plugger } = this.#options;
    const hold = enable === undefined ? pause.hold() : undefined;
    try {
      if (enable === undefined) {
        await plugger.plug(event.message, () => {});
      } else {
        await enable.plug(event.message);
      }
      event.done();
      enable?.giveBack();
    } catch (error) {
      const { message } = error as Error;
      // The slot of a VF that did not come up is nobody's concern.
      this.#options.log[enable?.isOver === true ? 'debug' : 'error'](
        `the VF could not be plugged: ${message}`,
        { backend: this.name, vfIndex, generation },
      );
      event.refuse(Errno.EIO, message);
    } finally {
      await hold?.release();
    }
  }

  /** Answered when the VMM holds nothing of the VF any more. */
  async #unplug(event: VfUnplugEvent): Promise<void> {
    const { vfIndex, generation } = event.message;
    try {
      await this.#options.plugger.unplug(vfIndex);
      event.done();
    } catch (error) {
      const { message } = error as Error;
      this.#options.log.error(`the VF could not be taken out: ${message}`, {
        backend: this.name,
        vfIndex,
        generation,
      });
      event.refuse(Errno.EIO, message);
    }
  }

  /** Nobody waits for it: what is not placed by then is placed in the enable. */
  #placeAhead(): void {
    const { plugger, log } = this.#options;
    const ask = (firstVf: number, count: number) => this.#askForSlots(firstVf, count);
    this.#ahead = this.#ahead
      .then(() => plugger.placeAhead(ask))
      .catch(({ message }: Error) => {
        log.debug(`slots are not placed ahead: ${message}`, { backend: this.name });
      });
  }

  /** The guest may stand still meanwhile, and other backends' enables wait: for a backend that hangs neither does for long. */
  async #askForSlots(firstVf: number, count: number): Promise<readonly Slot[]> {
    const { source, clock } = this.#options;
    if (this.#isOver || source.slots === undefined) {
      return [];
    }
    return await within(clock, SLOTS_ANSWER_MILLISECONDS, source.slots(firstVf, count), () => {
      return new Error(
        `the backend did not say where they belong within ${SLOTS_ANSWER_MILLISECONDS} ms`,
      );
    });
  }

  async #memorySpace(event: VfMemorySpaceEvent): Promise<void> {
    try {
      await this.#options.plugger.memorySpace(event.message);
      event.done();
    } catch (error) {
      const { message } = error as Error;
      this.#options.log.error(`the memory of VFs is not as the guest wants it: ${message}`, {
        backend: this.name,
      });
      event.refuse(Errno.EIO, message);
    }
  }

  #end(event: EnableEndEvent): void {
    const { outcome, text, generation } = event.message;
    if (outcome !== 'enabled') {
      this.#options.log.warn(`no VFs were enabled: ${text}`, { backend: this.name, generation });
    }
    this.#endEnable(outcome);
  }

  #giveUp(generation: number): void {
    if (this.#enable?.generation !== generation) {
      return;
    }
    this.#abandoned = generation;
    this.#options.log.error(
      `the backend did not finish enabling VFs within ${this.#options.limitMilliseconds} ms; the guest runs on without them`,
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
    this.#limit?.cancel();
    this.#ending = Promise.all([this.#ending, enable.end(outcome)]);
  }
}
