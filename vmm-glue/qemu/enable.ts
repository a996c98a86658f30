// One enable of VFs as the glue carries it out: the guest runs on for as long as it may, is paused, has the slots placed,
// and goes on. Made by BackendChannel, which hears from the backend what to do next.
import type { VfPlacement } from '../../protocol/hotplug/codec.ts';
import type { EnableBeginEvent } from '../client/hotplug.ts';
import { type Hold, NO_PAUSE, type PauseTiming } from './guest-pause.ts';
import type { PlacerQemu, SlotPlacer } from './slot-placer.ts';

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

export interface EnableOptions {
  /** The PF's socket. */
  readonly backend: string;
  readonly qemu: PlacerQemu;
  readonly placer: SlotPlacer;
  /** The guest could not be paused: the VFs of this enable cannot be placed. */
  cannotPause(error: Error): void;
  /** The guest goes on, or never had to be paused. */
  onTiming(timing: EnableTiming): void;
}

/** Software waits so long between VF Enable and its first look at a VF (PCIe 6.0, 9.3.3.3.1). */
const GUEST_WAIT_MILLISECONDS = 100;
/**
 * A stop is asked for so long before that is over: it takes 1 ms, or 5 to 10 on hosts that are emulated in software. Should
 * it come late, the backend draws out each look of the guest until it has come.
 */
const STOP_ROOM_MILLISECONDS = 20;

export class Enable {
  readonly generation: number;
  readonly #event: EnableBeginEvent;
  readonly #options: EnableOptions;
  /** Ends the time that the guest is given before it is paused. */
  #stopTimer: NodeJS.Timeout | undefined;
  /** Since QEMU was asked to pause the guest. */
  #hold: Hold | undefined;
  #isOver = false;
  /** Resolves when the guest is to be paused, or the enable is over. */
  readonly #pauseWanted: Promise<void>;
  #wantPause: () => void = () => {};
  /** VFs that were announced and placed. */
  readonly #plugged = new Set<number>();
  #placementCommands = 0;
  #placementMilliseconds = 0;

  constructor(event: EnableBeginEvent, options: EnableOptions) {
    this.generation = event.message.generation;
    this.#event = event;
    this.#options = options;
    this.#pauseWanted = new Promise((resolve) => {
      this.#wantPause = resolve;
    });
    const runOn = this.#runOnMilliseconds();
    if (runOn === 0) {
      this.#pause();
      return;
    }
    this.#stopTimer = setTimeout(() => this.#pause(), runOn);
    event.done();
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Places an announced VF once the guest stands still; rejects where QEMU has no such slot, or refuses. */
  async plug(vfIndex: number, placement: VfPlacement): Promise<void> {
    await this.#pauseWanted;
    this.#checkWanted();
    await this.#place(placement);
    this.#plugged.add(vfIndex);
  }

  /** Once every VF is placed, nothing more is expected to be written. */
  givePortBack(): void {
    if (this.#plugged.size >= this.#event.message.numVfs) {
      this.#options.qemu.pause.givePortBack();
    }
  }

  /** Lets the guest go on; resolves when it does, or when another backend still needs it paused. Counts once. */
  async end(outcome: EnableTiming['outcome']): Promise<void> {
    if (this.#isOver) {
      return;
    }
    this.#isOver = true;
    this.#wantPause();
    clearTimeout(this.#stopTimer);
    const pause = this.#hold === undefined ? NO_PAUSE : await this.#hold.release();
    if (pause !== undefined) {
      this.#report(outcome, pause);
    }
  }

  /** How long the guest may go on: it waits for its VFs by itself, and so does the backend. */
  #runOnMilliseconds(): number {
    if (this.#options.qemu.pause.isNeeded) {
      return 0;
    }
    const isSlow = (this.#event.message.readyAfterMilliseconds ?? 0) >= GUEST_WAIT_MILLISECONDS;
    return isSlow ? GUEST_WAIT_MILLISECONDS - STOP_ROOM_MILLISECONDS : 0;
  }

  /**
   * EnableBegin is answered as soon as QEMU has been asked to pause the guest, if not before: the backend keeps the
   * guest's write to VF Enable waiting for that, and QEMU can do nothing else meanwhile.
   */
  #pause(): void {
    clearTimeout(this.#stopTimer);
    const hold = this.#options.qemu.pause.hold();
    this.#hold = hold;
    void hold.asked.then(() => this.#event.done());
    hold.paused.catch((error: Error) => {
      this.#isOver = true;
      this.#options.cannotPause(error);
    });
    // The guest may have numbered its buses anew; while the backend is not ready, asking costs no time.
    this.#options.placer.lookUpBus();
    this.#wantPause();
  }

  #checkWanted(): void {
    if (this.#isOver) {
      throw new Error('the enable is over');
    }
  }

  async #place(placement: VfPlacement): Promise<void> {
    let began = 0;
    const commands = await this.#options.placer.place(placement, () => {
      this.#checkWanted();
      began = performance.now();
    });
    this.#placementCommands += commands;
    this.#placementMilliseconds += performance.now() - began;
  }

  #report(outcome: EnableTiming['outcome'], pause: PauseTiming): void {
    const { stopMilliseconds, contMilliseconds } = pause;
    const ours = stopMilliseconds + this.#placementMilliseconds + contMilliseconds;
    this.#options.onTiming({
      backend: this.#options.backend,
      generation: this.generation,
      outcome,
      placedVfs: this.#plugged.size,
      placementCommands: this.#placementCommands,
      placementMilliseconds: this.#placementMilliseconds,
      stopMilliseconds,
      backendMilliseconds: Math.max(0, pause.pauseMilliseconds - ours),
      contMilliseconds,
      pauseMilliseconds: pause.paused ? pause.pauseMilliseconds : 0,
      standstillMilliseconds: pause.standstillMilliseconds,
      monitorCommands: pause.monitorCommands,
    });
  }
}
