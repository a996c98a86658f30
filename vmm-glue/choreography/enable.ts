// One enable of VFs as the glue carries it out: the guest runs on for as long as it may, is paused, has its VFs plugged,
// and goes on; or it never stands still, where VFs are in place and come up in time. Made by BackendChannel, which hears from
// the backend what to do next.
import type { Clock, Timer } from '../../protocol/clock.ts';
import type { VfPlug } from '../../protocol/hotplug/messages.ts';
import { GUEST_WAIT_MILLISECONDS, RUN_ON_MILLISECONDS } from '../../protocol/hotplug/timing.ts';
import type { EnableBeginEvent } from '../client/hotplug.ts';
import { type GuestPause, type Hold, NO_PAUSE, type PauseTiming } from './guest-pause.ts';
import type { VfPlugger } from './vmm-control.ts';

/** How one enable went; times in milliseconds. */
export interface EnableTiming {
  readonly backend: string;
  readonly generation: number;
  readonly outcome: 'enabled' | 'failed' | 'abandoned';
  /** VFs that were placed, and the monitor commands that took; some are placed while the backend brings them up. */
  readonly placedVfs: number;
  readonly placementCommands: number;
  readonly placementMilliseconds: number;
  /** Until the VMM had stopped the guest. */
  readonly stopMilliseconds: number;
  /** Of the pause, what the VMM was not busy with: waiting for the backend to bring its VFs up. */
  readonly backendMilliseconds: number;
  readonly contMilliseconds: number;
  /** The guest stood still for this long; 0 where it was found paused, or never had to be. */
  readonly pauseMilliseconds: number;
  /** Of that, how long the guest's CPUs stood still, by the VMM's own account. */
  readonly standstillMilliseconds: number;
  readonly monitorCommands: number;
}

export interface EnableOptions {
  /** The PF's socket. */
  readonly backend: string;
  readonly pause: GuestPause;
  readonly plugger: VfPlugger;
  readonly clock: Clock;
  /** The guest could not be paused: the VFs of this enable cannot be placed. */
  cannotPause(error: Error): void;
  /** The guest goes on, or never had to be paused. */
  onTiming(timing: EnableTiming): void;
}

export class Enable {
  readonly generation: number;
  readonly #event: EnableBeginEvent;
  readonly #options: EnableOptions;
  /** Ends the time that the guest is given before it is paused. */
  #stopTimer: Timer | undefined;
  /** Since the VMM was asked to pause the guest. */
  #hold: Hold | undefined;
  #isOver = false;
  #isPrepared = false;
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
      this.#pause(this.#expectsWrites);
      return;
    }
    this.#stopTimer = options.clock.after(runOn, () => this.#pause(this.#expectsWrites));
    event.done();
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** The VFs take longer than the guest waits by itself. */
  get #isSlow(): boolean {
    return (this.#event.message.readyAfterMilliseconds ?? 0) >= GUEST_WAIT_MILLISECONDS;
  }

  /** A VF that is not in its place after all has what it takes looked up when it comes. */
  get #expectsWrites(): boolean {
    return this.#event.message.placed !== true && !this.#isPlugged;
  }

  /** Every VF of it is where it belongs. */
  get #isPlugged(): boolean {
    return this.#plugged.size >= this.#event.message.numVfs;
  }

  /** Plugs an announced VF once the guest stands still; rejects where the VMM cannot do it. */
  async plug(vf: VfPlug): Promise<void> {
    if (!this.#isOver && this.#options.plugger.plugAtOnce(vf)) {
      this.#plugged.add(vf.vfIndex);
      return;
    }
    if (!this.#isOver && !this.#isSlow && this.#hold === undefined) {
      // Against what the backend said there is something to write, while the guest waits.
      this.#pause(true);
    }
    await this.#pauseWanted;
    this.#checkWanted();
    await this.#place(vf);
    this.#plugged.add(vf.vfIndex);
  }

  /** Once every VF is placed, nothing more is expected to be written. */
  giveBack(): void {
    if (this.#hold !== undefined && this.#isPlugged) {
      this.#options.pause.giveBack();
    }
  }

  /** Lets the guest go on; resolves when it does, or when another backend still needs it paused. Counts once. */
  async end(outcome: EnableTiming['outcome']): Promise<void> {
    if (this.#isOver) {
      return;
    }
    this.#isOver = true;
    this.#wantPause();
    this.#stopTimer?.cancel();
    const pause = this.#hold === undefined ? NO_PAUSE : await this.#hold.release();
    if (pause !== undefined) {
      this.#report(outcome, pause);
    }
    if (outcome === 'enabled') {
      this.#options.plugger.enabled();
    }
  }

  /**
   * How long the guest may go on: it waits for its VFs by itself. It may where the VFs take long themselves, or are in their
   * places already, so that there is nothing to write; then they may be up before it needs to be paused at all.
   */
  #runOnMilliseconds(): number {
    if (this.#options.pause.isNeeded) {
      return 0;
    }
    return this.#isSlow || this.#event.message.placed === true ? RUN_ON_MILLISECONDS : 0;
  }

  /**
   * EnableBegin is answered as soon as the VMM has been asked to pause the guest, if not before: the backend keeps the
   * guest's write to VF Enable waiting for that, and a QEMU can do nothing else meanwhile.
   */
  #pause(writes: boolean): void {
    this.#stopTimer?.cancel();
    const hold = this.#options.pause.hold({ writes });
    this.#hold = hold;
    void hold.asked.then(() => this.#event.done());
    hold.paused.catch((error: Error) => {
      this.#isOver = true;
      this.#options.cannotPause(error);
    });
    if (writes) {
      // While the backend is not ready, asking costs no time.
      this.#prepare();
    }
    this.#wantPause();
  }

  /** Once a pause: the guest may have numbered its buses anew. */
  #prepare(): void {
    if (!this.#isPrepared) {
      this.#isPrepared = true;
      this.#options.plugger.prepare();
    }
  }

  #checkWanted(): void {
    if (this.#isOver) {
      throw new Error('the enable is over');
    }
  }

  async #place(vf: VfPlug): Promise<void> {
    const { clock, plugger } = this.#options;
    let began = 0;
    this.#prepare();
    const commands = await plugger.plug(vf, () => {
      this.#checkWanted();
      began = clock.now();
    });
    this.#placementCommands += commands;
    this.#placementMilliseconds += clock.now() - began;
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
