// Pauses the guest for as long as somebody needs it paused, and lets one caller at a time do something with it meanwhile.
// However things end, the guest runs on: what could not be resumed is resumed as soon as the VMM answers again. A guest
// found paused stays paused.
import type { Clock } from '../../protocol/clock.ts';
import { ExclusiveQueue } from '../../protocol/exclusive-queue.ts';
import type { Log } from '../../protocol/log.ts';
import type { GuestControl } from './vmm-control.ts';

/** How long one pause took, in milliseconds; commands counts everything asked of the VMM in it. */
export interface PauseTiming {
  /** False where the guest was found paused. */
  readonly paused: boolean;
  readonly stopMilliseconds: number;
  readonly contMilliseconds: number;
  /** From asking for the stop until the guest ran on. */
  readonly pauseMilliseconds: number;
  /** Of that, how long the guest's CPUs stood still, by the VMM's own account; 0 where it gave none. */
  readonly standstillMilliseconds: number;
  readonly monitorCommands: number;
}

/** Of what ended before the guest had to be paused. */
export const NO_PAUSE: PauseTiming = {
  paused: false,
  stopMilliseconds: 0,
  contMilliseconds: 0,
  pauseMilliseconds: 0,
  standstillMilliseconds: 0,
  monitorCommands: 0,
};

/** Somebody's need of a paused guest. */
export interface Hold {
  /** Resolves when the VMM has been asked to pause the guest, which it does before the guest gets far; earlier than `paused`. */
  readonly asked: Promise<void>;
  /** Resolves when the guest is paused; rejects when that could not be had (then the hold is over). */
  readonly paused: Promise<void>;
  /** Ends the need; resolves when the guest runs on, or when others still need it paused. Never rejects. */
  release(): Promise<PauseTiming | undefined>;
}

export interface GuestPauseOptions {
  readonly guest: GuestControl;
  readonly clock: Clock;
  readonly log: Log;
}

const FIRST_RETRY_MILLISECONDS = 100;
const LAST_RETRY_MILLISECONDS = 5_000;

export class GuestPause {
  readonly #guest: GuestControl;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #queue = new ExclusiveQueue();
  #holds = 0;
  /** We have asked for the stop, and the guest would run otherwise. */
  #owesResume = false;
  #isHeld = false;
  #isResuming = false;
  #began = 0;
  #stopMilliseconds = 0;
  #commandsBefore = 0;
  #retryDelay = FIRST_RETRY_MILLISECONDS;

  constructor({ guest, clock, log }: GuestPauseOptions) {
    this.#guest = guest;
    this.#clock = clock;
    this.#log = log;
  }

  /** Somebody needs the guest paused. */
  get isNeeded(): boolean {
    return this.#holds > 0;
  }

  /** Needs the guest paused from now on; `writes`: something is to be written meanwhile. */
  hold({ writes } = { writes: true }): Hold {
    this.#holds++;
    let isOver = false;
    const end = (): Promise<PauseTiming | undefined> => {
      if (isOver) {
        return Promise.resolve(undefined);
      }
      isOver = true;
      this.#holds = Math.max(0, this.#holds - 1);
      return this.#queue.run(() => this.#resumeIfUnneeded());
    };
    let tellAsked = (): void => {};
    const asked = new Promise<void>((resolve) => {
      tellAsked = resolve;
    });
    // A stop that is on its way already serves this hold as well; the queue may wait for the VMM that waits for us.
    if (this.#holds > 1) {
      tellAsked();
    }
    const paused = this.#queue.run(() => this.#pause(writes, tellAsked));
    if (writes) {
      // In the time until the first write nothing else is asked of the VMM.
      void this.run(() => this.#guest.prepareWrites()).catch(() => {});
    }
    paused.catch(() => void end());
    return { asked, paused, release: end };
  }

  /** Does something while the guest stands still, alone; only while a hold is in force. */
  run<T>(job: () => Promise<T>): Promise<T> {
    return this.#queue.run(async () => {
      if (!this.#isHeld && this.#holds > 0) {
        // Somebody has let it run since it was paused for this.
        await this.#pause(true, () => {});
      }
      if (!this.#isHeld) {
        throw new Error('the guest is not paused');
      }
      return await job();
    });
  }

  /** Puts back what was borrowed of the guest, while it costs nobody time; no more writes are expected. */
  giveBack(): void {
    void this.#queue
      .run(async () => {
        // Another hold's writes may still come, and whoever is last does it.
        if (this.#isHeld && this.#holds === 1) {
          await this.#guest.giveBack();
        }
      })
      // It is tried again before the guest goes on.
      .catch(() => {});
  }

  /** The VMM can be reached again: lets the guest go on if it waits for that. */
  async reconnected(isSameVmm: boolean): Promise<void> {
    await this.#queue.run(async () => {
      if (!isSameVmm) {
        this.#owesResume = false;
        this.#isHeld = false;
        this.#guest.forget();
      }
      await this.#resumeIfUnneeded();
    });
  }

  /**
   * The guest runs. Where that was not our doing and it is needed paused, it is paused anew; whoever stops it afterwards
   * and before us has it stay so.
   */
  guestRuns(): void {
    if (this.#isResuming || !this.#isHeld) {
      return;
    }
    this.#isHeld = false;
    this.#owesResume = false;
    this.#guest.forget();
    if (this.#holds > 0) {
      this.#log.warn('somebody has let the guest run while VFs are plugged: pausing it again');
      void this.#queue
        .run(() => this.#pause(true, () => {}))
        .catch((error: Error) => this.#log.error(`the guest runs: ${error.message}`));
    }
  }

  /** Nobody needs the guest paused any more; resolves when it runs on, or the VMM cannot be told. */
  async close(): Promise<void> {
    this.#holds = 0;
    await this.#queue.run(() => this.#resumeIfUnneeded());
  }

  /** Resumes a guest that a killed glue left paused. */
  async inherit(): Promise<void> {
    if (!this.#guest.inherit()) {
      return;
    }
    this.#log.warn('the glue before this one was ended while the guest was paused: resuming it');
    this.#owesResume = true;
    await this.#queue.run(() => this.#resumeIfUnneeded());
  }

  async #pause(writes: boolean, tellAsked: () => void): Promise<void> {
    if (this.#isHeld) {
      tellAsked();
      return;
    }
    const guest = this.#guest;
    // What is known of a VMM that is out of reach may be wrong by the time it answers again.
    guest.checkConnected();
    const mustStop = guest.isRunning || this.#owesResume;
    this.#began = this.#clock.now();
    this.#commandsBefore = guest.commandCount;
    const wasOwed = this.#owesResume;
    if (mustStop) {
      this.#owesResume = true;
      try {
        const stopped = guest.stop({ writes });
        if (guest.isConnected) {
          tellAsked();
        }
        this.#owesResume = (await stopped) || wasOwed;
      } catch (error) {
        // Where that is not certain the guest may be stopped later, so the resume stays owed; that of an earlier stop does anyway.
        if (guest.isRefusal(error)) {
          this.#owesResume = wasOwed;
        }
        throw error;
      }
    }
    this.#isHeld = true;
    this.#stopMilliseconds = this.#clock.now() - this.#began;
    tellAsked();
    // Told of right behind the answer to the stop, before this had looked at it.
    if (this.#owesResume && guest.isRunning) {
      this.guestRuns();
    }
  }

  async #resumeIfUnneeded(): Promise<PauseTiming | undefined> {
    if (this.#holds > 0 || !(this.#isHeld || this.#owesResume)) {
      return undefined;
    }
    const guest = this.#guest;
    const paused = this.#owesResume;
    try {
      await this.#giveBack();
      const before = this.#clock.now();
      if (paused) {
        this.#isResuming = true;
        await guest.resume().finally(() => {
          this.#isResuming = false;
        });
        this.#owesResume = false;
      } else {
        guest.forget();
      }
      const now = this.#clock.now();
      this.#isHeld = false;
      this.#retryDelay = FIRST_RETRY_MILLISECONDS;
      return {
        paused,
        stopMilliseconds: this.#stopMilliseconds,
        contMilliseconds: now - before,
        pauseMilliseconds: now - this.#began,
        standstillMilliseconds: paused ? guest.standstillMilliseconds : 0,
        monitorCommands: guest.commandCount - this.#commandsBefore,
      };
    } catch (error) {
      this.#isHeld = false;
      this.#log.error(`the guest cannot be resumed yet: ${(error as Error).message}`);
      this.#retryResume();
      return undefined;
    }
  }

  /** The guest is better off without, than paused. Rejects where the VMM is out of reach. */
  async #giveBack(): Promise<void> {
    try {
      await this.#guest.giveBack();
    } catch (error) {
      this.#log.error(`the guest goes on without what was borrowed: ${(error as Error).message}`);
      if (!this.#guest.isConnected) {
        throw error;
      }
    }
  }

  /** While the VMM is out of reach, reconnected() takes over. */
  #retryResume(): void {
    const delay = this.#retryDelay;
    this.#retryDelay = Math.min(delay * 2, LAST_RETRY_MILLISECONDS);
    this.#clock.after(delay, () => {
      if (this.#guest.isConnected) {
        void this.#queue.run(() => this.#resumeIfUnneeded());
      }
    });
  }
}
