// The guest of a stock QEMU: stopped and resumed by QMP, with a note on disk for whoever finds it stopped after a kill, and
// written to through its 0xCF8 port, which is given back as it was.
import type { GuestControl } from '../choreography/vmm-control.ts';
import { runState } from './answers.ts';
import type { Monitor } from './monitor.ts';
import type { PauseRecord } from './pause-record.ts';
import { CONFIG_ADDRESS, CONFIG_DATA, configAddress, type PlacementPlan } from './placement.ts';
import { QmpError } from './qmp.ts';

/** A guest that is resumed after an answer came late waits for as long as QEMU needs. */
const LATE_RESUME_MILLISECONDS = 60_000;

export class QemuGuest implements GuestControl {
  readonly #monitor: Monitor;
  readonly #record: PauseRecord;
  /** Asked to stop by us, and not resumed since. */
  #isStoppedByUs = false;
  #savedAddress: number | undefined;
  #isAddressChanged = false;

  constructor(monitor: Monitor, record: PauseRecord) {
    this.#monitor = monitor;
    this.#record = record;
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
    return this.#isStoppedByUs;
  }

  checkConnected(): void {
    this.#monitor.checkConnected();
  }

  /**
   * QEMU counts no stops, and says nothing of one that finds the guest stopped: the question that it takes up just before
   * tells whether a person was first. One who comes later, while the guest is paused, has it run on all the same.
   */
  async stop(): Promise<boolean> {
    const wasOurs = this.#isStoppedByUs;
    this.#isStoppedByUs = true;
    this.#note();
    const [before, stopped] = await Promise.allSettled([
      this.#monitor.ask('query-status', runState),
      this.#monitor.execute('stop'),
    ]);
    const ranBefore = before.status === 'rejected' || before.value.running;
    const isRefused = stopped.status === 'rejected' && this.isRefusal(stopped.reason);
    if (isRefused || !(wasOurs || ranBefore)) {
      this.#notStopped();
    }
    if (stopped.status === 'rejected') {
      throw stopped.reason;
    }
    return ranBefore;
  }

  /** A refusal is certain; a time limit is not. */
  isRefusal(error: unknown): boolean {
    return error instanceof QmpError;
  }

  async prepareWrites(): Promise<void> {
    if (this.#savedAddress !== undefined) {
      return;
    }
    this.#savedAddress = await this.#monitor.readPort(CONFIG_ADDRESS);
    if (this.#isStoppedByUs) {
      this.#note();
    }
  }

  /** Only while the guest stands still. Rejects where a write fails. QEMU carries them out in order, and is asked at once. */
  async writePorts(plan: PlacementPlan): Promise<void> {
    await this.prepareWrites();
    this.#isAddressChanged ||= plan.writes.length > 0;
    const answers = await Promise.allSettled(
      plan.writes.map((write) => this.#monitor.writePort(write)),
    );
    const failure = answers.find(({ status }) => status === 'rejected');
    if (failure?.status === 'rejected') {
      plan.failed();
      throw failure.reason;
    }
    plan.carriedOut();
  }

  /** A dword of config space, of the function at `routingId`. Only while the guest stands still. */
  async readConfig(routingId: number, register: number): Promise<number> {
    await this.prepareWrites();
    this.#isAddressChanged = true;
    const value = configAddress(routingId, register);
    const [, dword] = await Promise.all([
      this.#monitor.writePort({ port: CONFIG_ADDRESS, width: 4, value }),
      this.#monitor.readPort(CONFIG_DATA),
    ]);
    return dword;
  }

  async giveBack(): Promise<void> {
    const value = this.#savedAddress;
    if (value !== undefined && this.#isAddressChanged) {
      await this.#monitor.writePort({ port: CONFIG_ADDRESS, width: 4, value });
    }
    this.#forgetAddress();
  }

  async resume(): Promise<void> {
    // Even if no answer comes the guest may run from here on, and change the port.
    this.#forgetAddress();
    await this.#monitor.execute('cont', undefined, LATE_RESUME_MILLISECONDS);
    this.#notStopped();
  }

  inherit(): boolean {
    const note = this.#record.inherited;
    const isOurs = note?.qemu === this.#monitor.identity && !this.#monitor.isRunning;
    if (note === undefined || !isOurs) {
      this.#record.write(undefined);
      return false;
    }
    this.#isStoppedByUs = true;
    this.#savedAddress = note.configAddress;
    this.#isAddressChanged = note.configAddress !== undefined;
    return true;
  }

  forget(): void {
    this.#notStopped();
    this.#forgetAddress();
  }

  #forgetAddress(): void {
    this.#savedAddress = undefined;
    this.#isAddressChanged = false;
  }

  #notStopped(): void {
    this.#isStoppedByUs = false;
    this.#record.write(undefined);
  }

  #note(): void {
    const qemu = this.#monitor.identity;
    const configAddress = this.#savedAddress;
    this.#record.write(configAddress === undefined ? { qemu } : { qemu, configAddress });
  }
}
