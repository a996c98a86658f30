// Writes to a guest's config space that need not be done at once: the guest stands still for a few of them at a time,
// and runs on in between.
import type { Log } from '../../protocol/log.ts';
import { type GuestPause, NO_PAUSE } from '../choreography/guest-pause.ts';
import type { ConfigWrite } from './placement.ts';
import type { QemuGuest } from './qemu-guest.ts';

/** Writes that belong together: of one register, or of one function's. */
export type Step = readonly ConfigWrite[];

/** What all pauses took. */
export interface PausesTaken {
  readonly pauses: number;
  /** Of all of them. */
  readonly pausedMilliseconds: number;
  readonly longestPauseMilliseconds: number;
  /** To QEMU, in the pause that had most. */
  readonly mostCommands: number;
}

export interface ShortPausesOptions {
  readonly pause: GuestPause;
  readonly guest: QemuGuest;
  readonly log: Log;
}

/** Of one pause; a step that has more is done alone. */
const MOST_WRITES = 4;

export class ShortPauses {
  readonly #options: ShortPausesOptions;
  #pauses = 0;
  #longest = 0;
  #paused = 0;
  #mostCommands = 0;

  constructor(options: ShortPausesOptions) {
    this.#options = options;
  }

  get taken(): PausesTaken {
    return {
      pauses: this.#pauses,
      pausedMilliseconds: Math.round(this.#paused),
      longestPauseMilliseconds: Math.round(this.#longest),
      mostCommands: this.#mostCommands,
    };
  }

  /** Does something while the guest stands still. */
  async run<T>(job: () => Promise<T>): Promise<T> {
    const { pause, log } = this.#options;
    const hold = pause.hold();
    try {
      await hold.paused;
      return await pause.run(job);
    } finally {
      const { pauseMilliseconds, monitorCommands } = (await hold.release()) ?? NO_PAUSE;
      this.#pauses++;
      this.#longest = Math.max(this.#longest, pauseMilliseconds);
      this.#paused += pauseMilliseconds;
      this.#mostCommands = Math.max(this.#mostCommands, monitorCommands);
      log.debug('the guest stood still for the memory of VFs', {
        milliseconds: Math.round(pauseMilliseconds),
        commands: monitorCommands,
      });
    }
  }

  /** Carries out every step, in order; `check`, at the beginning of each pause, throws where that has become pointless. */
  async write(steps: readonly Step[], check: () => void): Promise<void> {
    const { guest } = this.#options;
    const left = [...steps];
    while (left.length > 0) {
      await this.run(async () => {
        check();
        let room = MOST_WRITES;
        do {
          const step = left.shift()!;
          room -= step.length;
          await guest.writeConfig(step);
        } while (left.length > 0 && left[0]!.length <= room);
      });
    }
  }
}
