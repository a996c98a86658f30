// The guest of a stock QEMU: stopped and resumed by QMP, with a note on disk for whoever finds it stopped after a kill, and
// written to in the way that its machine has (config-access.ts); what is borrowed of it for that is given back.
import type { GuestControl } from '../choreography/vmm-control.ts';
import { runState } from './answers.ts';
import type { Config, ConfigAccess } from './config-access.ts';
import { ConfigPorts } from './config-ports.ts';
import type { Monitor } from './monitor.ts';
import type { PauseRecord } from './pause-record.ts';
import type { ConfigWrite, PlacementPlan } from './placement.ts';
import { QmpError } from './qmp.ts';

/** A guest that is resumed after an answer came late waits for as long as QEMU needs. */
const LATE_RESUME_MILLISECONDS = 60_000;

export class QemuGuest implements GuestControl {
  readonly #monitor: Monitor;
  readonly #record: PauseRecord;
  /** The QEMU that was asked to stop by us, and not resumed since. */
  #stoppedQemu: string | undefined;
  #config: ConfigAccess;

  constructor(monitor: Monitor, record: PauseRecord) {
    this.#monitor = monitor;
    this.#record = record;
    this.#config = new ConfigPorts(monitor);
  }

  /** This is how the machine's config space is reached; by a PC's ports unless told so. */
  useConfigAccess(config: ConfigAccess): void {
    this.#config.close();
    this.#config = config;
  }

  get isConnected(): boolean {
    return this.#monitor.isConnected;
  }

  get isRunning(): boolean {
    return this.#monitor.isRunning;
  }

  get commandCount(): number {
    return this.#monitor.commandCount;
  }

  /** QEMU tells of both before it answers the command. */
  get standstillMilliseconds(): number {
    const { stoppedAt, resumedAt } = this.#monitor;
    return resumedAt >= stoppedAt ? resumedAt - stoppedAt : 0;
  }

  /** By us, and not resumed since. */
  get isStoppedByUs(): boolean {
    return this.#stoppedQemu !== undefined;
  }

  checkConnected(): void {
    this.#monitor.checkConnected();
  }

  /**
   * QEMU counts no stops, and says nothing of one that finds the guest stopped: the question that it takes up just before
   * tells whether a person was first. One who comes later, while the guest is paused, has it run on all the same.
   * What a write needs to know QEMU is asked for behind the stop, by the same line to it, which it answers in order.
   */
  async stop({ writes }: { writes: boolean }): Promise<boolean> {
    const wasOurs = this.#stoppedQemu === this.#monitor.identity;
    this.#stoppedQemu = this.#monitor.identity;
    this.#noteStopped();
    const [before, stopped] = await Promise.allSettled([
      this.#monitor.ask('query-status', runState),
      this.#monitor.execute('stop'),
      ...(writes ? [this.prepareWrites()] : []),
    ]);
    const ranBefore = before.status === 'rejected' || before.value.running;
    const isRefused = stopped.status === 'rejected' && this.isRefusal(stopped.reason);
    if (!wasOurs && (isRefused || !ranBefore)) {
      this.#notStopped();
    }
    if (stopped.status === 'rejected') {
      if (!wasOurs) {
        // It was asked of a guest that ran.
        this.#config.forget();
        this.#noteStopped();
      }
      throw stopped.reason;
    }
    return ranBefore;
  }

  /** A refusal is certain; a time limit is not. */
  isRefusal(error: unknown): boolean {
    return error instanceof QmpError;
  }

  async prepareWrites(): Promise<void> {
    const before = this.#config.borrowed;
    await this.#config.prepare();
    if (this.#config.borrowed !== before) {
      this.#noteStopped();
    }
  }

  /** What a pause will do first, to no effect. */
  async warmUp(): Promise<void> {
    await this.#config.warmUp();
  }

  /** Config space, where the guest need not stand still for it. Rejects with the errors of QMP. */
  async configWhileRunning(): Promise<Config | undefined> {
    return await this.#config.whileRunning();
  }

  /** Gives the commands that it took. Only while the guest stands still. Rejects where a write fails. */
  async writeConfig(writes: readonly ConfigWrite[]): Promise<number> {
    await this.prepareWrites();
    return await this.#config.write(writes);
  }

  /** The same, with what is remembered of it. */
  async place(plan: PlacementPlan): Promise<number> {
    await this.prepareWrites();
    try {
      const commands = await this.#config.write(plan.writes);
      plan.carriedOut();
      return commands;
    } catch (error) {
      plan.failed();
      throw error;
    }
  }

  /** How many commands writing that takes. Only while the guest stands still. */
  commandsFor(writes: readonly ConfigWrite[]): number {
    return this.#config.commandsFor(writes);
  }

  /** A dword of config space, of the function at `routingId`. Only while the guest stands still. */
  async readConfig(routingId: number, register: number): Promise<number> {
    await this.prepareWrites();
    return await this.#config.read(routingId, register);
  }

  async giveBack(): Promise<void> {
    await this.#config.giveBack();
  }

  async resume(): Promise<void> {
    // Even if no answer comes the guest may run from here on, and change what was borrowed of it.
    this.#config.forget();
    // Another QEMU may have come since, whose owner wants it paused.
    if (this.#stoppedQemu === this.#monitor.identity) {
      await this.#monitor.execute('cont', undefined, LATE_RESUME_MILLISECONDS);
    }
    this.#notStopped();
  }

  inherit(): boolean {
    const note = this.#record.inherited;
    const isOurs = note?.qemu === this.#monitor.identity && !this.#monitor.isRunning;
    if (note === undefined || !isOurs) {
      this.#record.write(undefined);
      return false;
    }
    this.#stoppedQemu = note.qemu;
    this.#config.inherit(note.configAddress);
    return true;
  }

  forget(): void {
    this.#notStopped();
    this.#config.forget();
  }

  /** Nobody writes to it any more. */
  close(): void {
    this.#config.close();
  }

  #notStopped(): void {
    this.#stoppedQemu = undefined;
    this.#record.write(undefined);
  }

  /** Where it is, by us. */
  #noteStopped(): void {
    const qemu = this.#stoppedQemu;
    if (qemu === undefined) {
      return;
    }
    const configAddress = this.#config.borrowed;
    this.#record.write(configAddress === undefined ? { qemu } : { qemu, configAddress });
  }
}
