// Writes to a guest's config space that need not be done at once. Where config space is memory the guest runs on meanwhile;
// where it is behind ports, which are the guest's, it stands still for a few writes at a time.
import type { Clock } from '../../protocol/clock.ts';
import type { Log } from '../../protocol/log.ts';
import { type GuestPause, NO_PAUSE } from '../choreography/guest-pause.ts';
import type { Config } from './config-access.ts';
import type { ConfigWrite } from './placement.ts';
import type { QemuGuest } from './qemu-guest.ts';

/** Writes that belong together: of one register, or of one function's. */
export type Step = readonly ConfigWrite[];

/** What all of it took. */
export interface WritesTaken {
  readonly pauses: number;
  /** Of all of them. */
  readonly pausedMilliseconds: number;
  readonly longestPauseMilliseconds: number;
  /** To QEMU, in the pause that had most. */
  readonly mostCommands: number;
  /** Of those that the guest did not stand still for: QEMU has its big lock for so long. */
  readonly longestCommandMilliseconds: number;
}

export interface BackgroundWritesOptions {
  readonly pause: GuestPause;
  readonly guest: QemuGuest;
  readonly log: Log;
  readonly clock: Clock;
}

/** Of one pause; a step that has more is done alone. */
const MOST_WRITES = 4;

export class BackgroundWrites {
  readonly #options: BackgroundWritesOptions;
  #pauses = 0;
  #longest = 0;
  #paused = 0;
  #mostCommands = 0;
  #longestCommand = 0;

  constructor(options: BackgroundWritesOptions) {
    this.#options = options;
  }

  get taken(): WritesTaken {
    return {
      pauses: this.#pauses,
      pausedMilliseconds: Math.round(this.#paused),
      longestPauseMilliseconds: Math.round(this.#longest),
      mostCommands: this.#mostCommands,
      longestCommandMilliseconds: Math.round(this.#longestCommand),
    };
  }

  /** Does something with config space. */
  async run<T>(job: (config: Config) => Promise<T>): Promise<T> {
    const { guest } = this.#options;
    const config = await guest.configWhileRunning();
    return config === undefined
      ? await this.inPause(() => job(whileStopped(guest)))
      : await job(this.#timed(config));
  }

  /** Carries out every step, in order; `check`, every few steps, throws where that has become pointless. */
  async write(steps: readonly Step[], check: () => void): Promise<void> {
    const left = [...steps];
    while (left.length > 0) {
      await this.run(async (config) => {
        check();
        let room = MOST_WRITES;
        do {
          const step = left.shift()!;
          room -= step.length;
          await config.write(step);
        } while (left.length > 0 && left[0]!.length <= room);
      });
    }
  }

  /** Does something for which the guest must stand still, however config space is reached. */
  async inPause<T>(job: () => Promise<T>): Promise<T> {
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

  #timed(config: Config): Config {
    const { clock } = this.#options;
    const timed = async <T>(answer: Promise<T>): Promise<T> => {
      const began = clock.now();
      try {
        return await answer;
      } finally {
        this.#longestCommand = Math.max(this.#longestCommand, clock.now() - began);
      }
    };
    return {
      read: (routingId, register) => timed(config.read(routingId, register)),
      write: (writes) => timed(config.write(writes)),
    };
  }
}

function whileStopped(guest: QemuGuest): Config {
  return {
    read: (routingId, register) => guest.readConfig(routingId, register),
    write: (writes) => guest.writeConfig(writes),
  };
}
