// Writes to a guest's config space that need not be done at once. Where config space is memory the guest runs on meanwhile;
// where it is behind ports, which are the guest's, it stands still for a few writes at a time, and for a short time.
import type { Clock } from '../../protocol/clock.ts';
import type { Log } from '../../protocol/log.ts';
import { pause as rest } from '../../protocol/retry.ts';
import { type GuestPause, NO_PAUSE } from '../choreography/guest-pause.ts';
import type { Config } from './config-access.ts';
import type { PauseBudget } from './pause-budget.ts';
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
  /** Of the guest's CPUs in one pause, by QEMU's own account. */
  readonly longestStandstillMilliseconds: number;
  /** To QEMU, in the pause that had most. */
  readonly mostCommands: number;
  /** Of those that the guest did not stand still for: it waits where it wants something of QEMU meanwhile. */
  readonly longestCommandMilliseconds: number;
}

export interface BackgroundWritesOptions {
  readonly pause: GuestPause;
  readonly guest: QemuGuest;
  readonly log: Log;
  readonly clock: Clock;
  /** What one pause may take, by all that were; a step that takes more is done alone. */
  readonly budget: PauseBudget;
}

/** Steps while the guest runs on, until it is looked anew whether they are wanted. */
const MOST_STEPS = 4;
/** The guest has QEMU to itself for no longer than this after a command. */
const MOST_REST_MILLISECONDS = 100;

export class BackgroundWrites {
  readonly #options: BackgroundWritesOptions;
  readonly #budget: PauseBudget;
  #pauses = 0;
  #longest = 0;
  #longestStandstill = 0;
  #paused = 0;
  #mostCommands = 0;
  #longestCommand = 0;

  constructor(options: BackgroundWritesOptions) {
    this.#options = options;
    this.#budget = options.budget;
  }

  get taken(): WritesTaken {
    return {
      pauses: this.#pauses,
      pausedMilliseconds: Math.round(this.#paused),
      longestPauseMilliseconds: tenths(this.#longest),
      longestStandstillMilliseconds: tenths(this.#longestStandstill),
      mostCommands: this.#mostCommands,
      longestCommandMilliseconds: Math.round(this.#longestCommand),
    };
  }

  /**
   * Does something with config space. `hasRoom` tells whether one step more is to be done by the same job: the first always, another
   * while it fits into the pause, or a few where the guest runs on.
   */
  async run<T>(job: (config: Config, hasRoom: (step: Step) => boolean) => Promise<T>): Promise<T> {
    const { guest, clock } = this.#options;
    const config = await guest.configWhileRunning();
    if (config !== undefined) {
      let steps = 0;
      return await job(this.#sharing(config), () => steps++ < MOST_STEPS);
    }
    return await this.inPause(async () => {
      await guest.prepareWrites();
      const paused: Config = {
        read: (routingId, register) => guest.readConfig(routingId, register),
        write: (writes) => this.#counted(() => guest.writeConfig(writes)),
      };
      return await job(paused, (step) =>
        this.#budget.hasRoom(guest.commandsFor(step), clock.now()),
      );
    });
  }

  /** Carries out every step, in order; `check`, every few steps, throws where that has become pointless. */
  async write(steps: readonly Step[], check: () => void): Promise<void> {
    const left = [...steps];
    while (left.length > 0) {
      await this.run(async (config, hasRoom) => {
        check();
        while (left.length > 0 && hasRoom(left[0]!)) {
          await config.write(left.shift()!);
        }
      });
    }
  }

  /** In a pause: does something that takes so many commands and gives them, where it fits into the pause; undefined where not. */
  async step(commands: number, job: () => Promise<number>): Promise<number | undefined> {
    return this.#budget.hasRoom(commands, this.#options.clock.now())
      ? await this.#counted(job)
      : undefined;
  }

  async #counted(job: () => Promise<number>): Promise<number> {
    const { clock } = this.#options;
    const began = clock.now();
    const commands = await job();
    this.#budget.did(commands, clock.now() - began);
    return commands;
  }

  /** Does something for which the guest must stand still, however config space is reached. */
  async inPause<T>(job: () => Promise<T>): Promise<T> {
    const { pause, log, clock } = this.#options;
    this.#budget.begin(clock.now());
    const hold = pause.hold();
    try {
      await hold.paused;
      return await pause.run(job);
    } finally {
      const taken = (await hold.release()) ?? NO_PAUSE;
      const { pauseMilliseconds, contMilliseconds, standstillMilliseconds } = taken;
      this.#budget.ended(contMilliseconds);
      this.#pauses++;
      this.#longest = Math.max(this.#longest, pauseMilliseconds);
      this.#longestStandstill = Math.max(this.#longestStandstill, standstillMilliseconds);
      this.#paused += pauseMilliseconds;
      this.#mostCommands = Math.max(this.#mostCommands, taken.monitorCommands);
      log.debug('the guest stood still for the memory of VFs', {
        milliseconds: Math.round(pauseMilliseconds),
        commands: taken.monitorCommands,
      });
    }
  }

  /**
   * One command while the guest runs. QEMU carries it out with its big lock held, which the guest's accesses wait for: so the guest
   * then has QEMU to itself for as long as that took.
   */
  async whileRunning<T>(command: () => Promise<T>): Promise<T> {
    const { clock } = this.#options;
    const began = clock.now();
    const answer = await command();
    const took = clock.now() - began;
    this.#longestCommand = Math.max(this.#longestCommand, took);
    if (took > 0) {
      await rest(clock, Math.min(took, MOST_REST_MILLISECONDS));
    }
    return answer;
  }

  #sharing(config: Config): Config {
    return {
      read: (routingId, register) => this.whileRunning(() => config.read(routingId, register)),
      write: (writes) => this.whileRunning(() => config.write(writes)),
    };
  }
}

function tenths(milliseconds: number): number {
  return Math.round(milliseconds * 10) / 10;
}
