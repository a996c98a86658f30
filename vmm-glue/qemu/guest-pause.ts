// Pauses the guest for as long as somebody needs it paused, and gives the only way to write to its I/O ports: one
// caller at a time, with what the guest had in the 0xCF8 port put back. However things end, the guest runs on:
// what could not be resumed is resumed as soon as QEMU answers again. A guest found paused stays paused.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../../protocol/log.ts';
import { ExclusiveQueue } from './exclusive-queue.ts';
import type { Monitor } from './monitor.ts';
import type { PauseRecord } from './pause-record.ts';
import { CONFIG_ADDRESS, type PlacementPlan } from './placement.ts';
import { QmpError } from './qmp.ts';

/** How long one pause took, in milliseconds; commands counts everything asked of QEMU in it. */
export interface PauseTiming {
  /** False where the guest was found paused. */
  readonly paused: boolean;
  readonly stopMilliseconds: number;
  readonly contMilliseconds: number;
  /** From asking for the stop until the guest ran on. */
  readonly pauseMilliseconds: number;
  /** Of that, how long the guest's CPUs stood still, by QEMU's own account; 0 where it gave none. */
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
  /** Resolves when QEMU has been asked to pause the guest, which it does before the guest gets far; earlier than `paused`. */
  readonly asked: Promise<void>;
  /** Resolves when the guest is paused; rejects when that could not be had (then the hold is over). */
  readonly paused: Promise<void>;
  /** Ends the need; resolves when the guest runs on, or when others still need it paused. Never rejects. */
  release(): Promise<PauseTiming | undefined>;
}

/** A guest resumed after its answer was late waits for as long as QEMU needs. */
const LATE_RESUME_MILLISECONDS = 60_000;
const FIRST_RETRY_MILLISECONDS = 100;
const LAST_RETRY_MILLISECONDS = 5_000;

export class GuestPause {
  readonly #monitor: Monitor;
  readonly #record: PauseRecord;
  readonly #log: Log;
  readonly #queue = new ExclusiveQueue();
  #holds = 0;
  /** We have asked QEMU to stop, and the guest would run otherwise. */
  #owesResume = false;
  #isHeld = false;
  #savedAddress: number | undefined;
  #isAddressChanged = false;
  #began = 0;
  #stopMilliseconds = 0;
  #commandsBefore = 0;
  #retryDelay = FIRST_RETRY_MILLISECONDS;

  constructor(monitor: Monitor, record: PauseRecord, log: Log) {
    this.#monitor = monitor;
    this.#record = record;
    this.#log = log;
  }

  /** Somebody needs the guest paused. */
  get isNeeded(): boolean {
    return this.#holds > 0;
  }

  /** Needs the guest paused from now on. */
  hold(): Hold {
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
    // A stop that is on its way already serves this hold as well; the queue may wait for the QEMU that waits for us.
    if (this.#holds > 1) {
      tellAsked();
    }
    const paused = this.#queue.run(() => this.#pause(tellAsked));
    // In the time until the first port access nothing else is asked of QEMU: save the port then.
    void this.#queue.run(() => this.#saveAddress()).catch(() => {});
    paused.catch(() => void end());
    return { asked, paused, release: end };
  }

  /** Does something while the guest stands still, alone; only while a hold is in force. */
  run<T>(job: () => Promise<T>): Promise<T> {
    return this.#queue.run(async () => {
      if (!this.#isHeld) {
        throw new Error('the guest is not paused');
      }
      return await job();
    });
  }

  /** Writes to the guest's ports what `plan` gives when its turn comes; as `run`. Rejects at the first write that fails. */
  writePorts(plan: () => Promise<PlacementPlan>): Promise<void> {
    return this.run(async () => {
      const planned = await plan();
      await this.#saveAddress();
      try {
        for (const write of planned.writes) {
          if (write.port === CONFIG_ADDRESS) {
            this.#isAddressChanged = true;
          }
          await this.#monitor.writePort(write);
        }
      } catch (error) {
        planned.failed();
        throw error;
      }
      planned.carriedOut();
    });
  }

  /** Puts back what the guest had in the 0xCF8 port, while it costs nobody time; no more port writes are expected. */
  givePortBack(): void {
    void this.#queue
      .run(async () => {
        // Another hold's writes may still come, and whoever is last does it.
        if (this.#isHeld && this.#holds === 1) {
          await this.#restoreAddress();
        }
      })
      // It is tried again before the guest goes on.
      .catch(() => {});
  }

  /** The connection is back: lets the guest go on if it waits for that. */
  async reconnected(isSameQemu: boolean): Promise<void> {
    await this.#queue.run(async () => {
      if (!isSameQemu) {
        this.#owesNothing();
        this.#isHeld = false;
        this.#forgetAddress();
      }
      await this.#resumeIfUnneeded();
    });
  }

  /** Nobody needs the guest paused any more; resolves when it runs on, or QEMU cannot be told. */
  async close(): Promise<void> {
    this.#holds = 0;
    await this.#queue.run(() => this.#resumeIfUnneeded());
  }

  /** Resumes a guest that a killed glue left paused. */
  async inherit(): Promise<void> {
    const note = this.#record.inherited;
    const isOurs = note?.qemu === this.#monitor.identity && !this.#monitor.isRunning;
    if (note === undefined || !isOurs) {
      this.#record.write(undefined);
      return;
    }
    this.#log.warn('the glue before this one was ended while the guest was paused: resuming it');
    this.#owesResume = true;
    this.#savedAddress = note.configAddress;
    this.#isAddressChanged = note.configAddress !== undefined;
    await this.#queue.run(() => this.#resumeIfUnneeded());
  }

  async #pause(tellAsked: () => void): Promise<void> {
    if (this.#isHeld) {
      tellAsked();
      return;
    }
    // What is known of a QEMU that is out of reach may be wrong by the time it answers again.
    this.#monitor.checkConnected();
    const mustStop = this.#monitor.isRunning || this.#owesResume;
    if (mustStop) {
      this.#owesResume = true;
      this.#record.write({ qemu: this.#monitor.identity });
    }
    this.#began = performance.now();
    this.#commandsBefore = this.#monitor.commandCount;
    if (mustStop) {
      try {
        const stopped = this.#monitor.execute('stop');
        if (this.#monitor.isConnected) {
          tellAsked();
        }
        await stopped;
      } catch (error) {
        // A refusal is certain; a time limit is not: QEMU may stop the guest later, so the resume stays owed.
        if (error instanceof QmpError) {
          this.#owesNothing();
        }
        throw error;
      }
    }
    this.#isHeld = true;
    this.#stopMilliseconds = performance.now() - this.#began;
    tellAsked();
  }

  async #saveAddress(): Promise<void> {
    if (!this.#isHeld || this.#savedAddress !== undefined) {
      return;
    }
    this.#savedAddress = await this.#monitor.readPort(CONFIG_ADDRESS);
    if (this.#owesResume) {
      this.#record.write({ qemu: this.#monitor.identity, configAddress: this.#savedAddress });
    }
  }

  async #resumeIfUnneeded(): Promise<PauseTiming | undefined> {
    if (this.#holds > 0 || !(this.#isHeld || this.#owesResume)) {
      return undefined;
    }
    const paused = this.#owesResume;
    try {
      await this.#restoreAddress();
      this.#forgetAddress();
      const before = performance.now();
      if (this.#owesResume) {
        await this.#continueGuest();
      }
      const timing = {
        paused,
        stopMilliseconds: this.#stopMilliseconds,
        contMilliseconds: performance.now() - before,
        pauseMilliseconds: performance.now() - this.#began,
        standstillMilliseconds: paused ? this.#standstill() : 0,
        monitorCommands: this.#monitor.commandCount - this.#commandsBefore,
      };
      this.#isHeld = false;
      this.#retryDelay = FIRST_RETRY_MILLISECONDS;
      return timing;
    } catch (error) {
      this.#isHeld = false;
      this.#log.error(`the guest cannot be resumed yet: ${(error as Error).message}`);
      void this.#retryResume();
      return undefined;
    }
  }

  /** QEMU tells of both before it answers the command. */
  #standstill(): number {
    const { stoppedAt, resumedAt } = this.#monitor;
    return resumedAt >= stoppedAt ? resumedAt - stoppedAt : 0;
  }

  async #continueGuest(): Promise<void> {
    await this.#monitor.execute('cont', undefined, LATE_RESUME_MILLISECONDS);
    this.#owesNothing();
  }

  #owesNothing(): void {
    this.#owesResume = false;
    this.#record.write(undefined);
  }

  async #restoreAddress(): Promise<void> {
    const value = this.#savedAddress;
    if (value === undefined || !this.#isAddressChanged) {
      return;
    }
    try {
      await this.#monitor.writePort({ port: CONFIG_ADDRESS, width: 4, value });
      this.#isAddressChanged = false;
    } catch (error) {
      // The guest is better off with a wrong port, which it sets before most accesses, than paused.
      this.#log.error(`port 0xcf8 was not restored: ${(error as Error).message}`);
      if (!this.#monitor.isConnected) {
        throw error;
      }
    }
  }

  #forgetAddress(): void {
    this.#savedAddress = undefined;
    this.#isAddressChanged = false;
  }

  /** While the connection is down, reconnected() takes over. */
  async #retryResume(): Promise<void> {
    await sleep(this.#retryDelay);
    this.#retryDelay = Math.min(this.#retryDelay * 2, LAST_RETRY_MILLISECONDS);
    if (this.#monitor.isConnected) {
      await this.#queue.run(() => this.#resumeIfUnneeded());
    }
  }
}
