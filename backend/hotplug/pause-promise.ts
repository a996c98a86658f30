// What a glue says of the guest's pause for the last enable, whatever it says later of one before: that it has asked its VMM
// for it, or will. Kept by HotplugChannel; the answer to the guest's write waits for it.
import type { Clock } from '../../protocol/clock.ts';
import { SILENT_GLUE_MILLISECONDS } from '../../protocol/hotplug/timing.ts';

export class PausePromise {
  readonly #clock: Clock;
  #state: 'none' | 'awaited' | 'given' = 'none';
  #generation = 0;
  #awaitedSince = 0;
  readonly #callbacks: (() => void)[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The last enable's; 0 before the first. */
  get generation(): number {
    return this.#generation;
  }

  get isAwaited(): boolean {
    return this.#state === 'awaited';
  }

  get isGiven(): boolean {
    return this.#state === 'given';
  }

  /** How long the answer is still waited for; 0 where it has come. */
  get patienceMilliseconds(): number {
    if (!this.isAwaited) {
      return 0;
    }
    const waited = this.#clock.now() - this.#awaitedSince;
    return Math.max(0, SILENT_GLUE_MILLISECONDS - waited);
  }

  asked(generation: number): void {
    this.#state = 'awaited';
    this.#generation = generation;
    this.#awaitedSince = this.#clock.now();
  }

  answered(generation: number, isGiven: boolean): void {
    if (generation === this.#generation) {
      this.#settle(isGiven ? 'given' : 'none');
    }
  }

  /** Who was asked has gone. */
  drop(): void {
    this.#settle('none');
  }

  /** Calls back when the answer has come, or nobody is left to give it. */
  whenSettled(callback: () => void): void {
    this.#callbacks.push(callback);
  }

  #settle(state: 'none' | 'given'): void {
    this.#state = state;
    for (const callback of this.#callbacks.splice(0)) {
      callback();
    }
  }
}
