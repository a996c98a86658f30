// The glue's line to one QEMU: a QMP connection that comes back when it breaks, the run state followed by events,
// and QEMU's monitor commands for I/O ports. qemu-guest.ts and glue.ts stand on it.
import { statSync } from 'node:fs';
import type { Clock } from '../../protocol/clock.ts';
import type { Log } from '../../protocol/log.ts';
import { elapsed, retryUntil } from '../../protocol/retry.ts';
import { monotonicNanoseconds, processClock } from '../../protocol/unix/process-clock.ts';
import { migrationStatus, type Reader, runState, text } from './answers.ts';
import { QmpClient, QmpError, type QmpEvent, QmpUnavailableError, readAnswer } from './qmp.ts';

export interface MonitorOptions {
  readonly log: Log;
  /** For the connection and for each command. */
  readonly timeoutMilliseconds?: number;
  /** How long to go on trying when the first connection finds nobody; 0 by default. */
  readonly patienceMilliseconds?: number;
  /** Ends those tries, and everything else: the monitor is closed. */
  readonly signal?: AbortSignal;
  /** Another QEMU may come after this one; true by default. */
  readonly expectsAnother?: boolean;
  readonly clock?: Clock;
  /** Hears of each command that was answered; times in nanoseconds of CLOCK_MONOTONIC. */
  onCommand?(text: string, askedAt: bigint, answeredAt: bigint): void;
}

/** A write to an I/O port; `width` in bytes. */
export interface PortWrite {
  readonly port: number;
  readonly width: 2 | 4;
  readonly value: number;
}

/** What the owner of a monitor does about what happens in QEMU. */
export interface MonitorListener {
  /** The machine was reset: devices are as after power-on. */
  machineReset(): void;
  /** The guest's CPUs run again, whoever let them. */
  resumed(): void;
  /** The guest may have more RAM than before. */
  memoryChanged(): void;
  /** QEMU saves or migrates the machine; `status` is QEMU's word for how far it is. */
  migrating(status: string): void;
  /** The connection is back; commands work from now on. `isSameQemu`: it is still the process from before. */
  reconnected(isSameQemu: boolean): Promise<void>;
}

const FIRST_RETRY_MILLISECONDS = 20;
const LAST_RETRY_MILLISECONDS = 1_000;
/** A DIMM that the guest has taken note of; memory of virtio-mem. */
const MEMORY_EVENTS = ['ACPI_DEVICE_OST', 'MEMORY_DEVICE_SIZE_CHANGE'];
const WIDTH_LETTERS = { 2: 'h', 4: 'w' } as const;

export class Monitor {
  readonly path: string;
  readonly clock: Clock;
  listener: MonitorListener | undefined;
  /** Commands answered so far; for measurements. */
  commandCount = 0;
  /** When the guest last stopped and ran on, by QEMU's clock; NaN before. */
  stoppedAt = Number.NaN;
  resumedAt = Number.NaN;
  readonly #options: MonitorOptions;
  #client: QmpClient | undefined;
  #identity = '';
  #isRunning = false;
  #status = '';
  #stateChanges = 0;
  #isShutDown = false;
  readonly #closing = new AbortController();

  /** Connects and learns the run state. Rejects with QmpUnavailableError or QmpError. */
  static async open(path: string, options: MonitorOptions): Promise<Monitor> {
    const monitor = new Monitor(path, options);
    const deadline = monitor.clock.now() + (options.patienceMilliseconds ?? 0);
    await monitor.#retry(() => monitor.clock.now() >= deadline);
    return monitor;
  }

  private constructor(path: string, options: MonitorOptions) {
    this.path = path;
    this.#options = options;
    this.clock = options.clock ?? processClock;
    const close = (): void => this.close();
    options.signal?.addEventListener('abort', close);
    this.#closing.signal.addEventListener('abort', () =>
      options.signal?.removeEventListener('abort', close),
    );
    if (options.signal?.aborted === true) {
      close();
    }
  }

  get isConnected(): boolean {
    return this.#client?.isOpen === true;
  }

  /** The guest's CPUs run, as far as QEMU has told. */
  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** The guest has not run since its devices were last reset. */
  get isFresh(): boolean {
    return this.#status === 'prelaunch';
  }

  /** Which QEMU process this is; another one never gives the same. */
  get identity(): string {
    return this.#identity;
  }

  async execute(
    command: string,
    args?: Record<string, unknown>,
    timeoutMilliseconds = this.#options.timeoutMilliseconds,
  ): Promise<unknown> {
    const askedAt = monotonicNanoseconds();
    const answer = await this.#connectedClient().execute(command, args, timeoutMilliseconds);
    const line = args?.['command-line'];
    this.answered(line === undefined ? command : String(line), askedAt);
    return answer;
  }

  /** QEMU has answered a command, of this line to it or another; asked at `askedAt`, in nanoseconds of CLOCK_MONOTONIC. */
  answered(text: string, askedAt: bigint): void {
    this.commandCount++;
    this.#options.onCommand?.(text, askedAt, monotonicNanoseconds());
  }

  /** As execute, with the answer read. Rejects with QmpError where it is of another shape. */
  async ask<T>(command: string, reader: Reader<T>, args?: Record<string, unknown>): Promise<T> {
    return readAnswer(command, await this.execute(command, args), reader);
  }

  /** @throws QmpUnavailableError where there is no connection now. */
  checkConnected(): void {
    this.#connectedClient();
  }

  async writePort(write: PortWrite): Promise<void> {
    const { port, width, value } = write;
    await this.#humanCommand(
      `o /${WIDTH_LETTERS[width]} 0x${port.toString(16)} 0x${value.toString(16)}`,
    );
  }

  async readPort(port: number): Promise<number> {
    const answer = await this.#humanCommand(`i /w 0x${port.toString(16)}`, true);
    const match = /=\s*0x([0-9a-f]{1,8})$/i.exec(answer);
    if (match === null) {
      throw new QmpError('human-monitor-command', 'GenericError', `reading a port gave ${answer}`);
    }
    return Number.parseInt(match[1]!, 16);
  }

  /** Asks for the run state; events keep it up to date from then on. */
  async refreshStatus(): Promise<void> {
    const changes = this.#stateChanges;
    const { status, running } = await this.ask('query-status', runState);
    this.#status = status;
    // An event that came meanwhile is not older than the answer.
    if (changes === this.#stateChanges) {
      this.#isRunning = running;
    }
  }

  close(): void {
    this.#closing.abort();
    this.#client?.close();
  }

  #connectedClient(): QmpClient {
    if (this.#client?.isOpen === true) {
      return this.#client;
    }
    throw new QmpUnavailableError(this.path, 'QEMU has closed the connection');
  }

  /** A human monitor command that says something has refused, but where an answer is expected. */
  async #humanCommand(line: string, expectsText = false): Promise<string> {
    const args = { 'command-line': line };
    const answer = (await this.ask('human-monitor-command', text, args)).trim();
    if (answer !== '' && !expectsText) {
      throw new QmpError(`human-monitor-command "${line}"`, 'GenericError', answer);
    }
    return answer;
  }

  /** Connects; for as long as `isOver` and nobody ends it. */
  #retry(isOver: (error: unknown) => boolean): Promise<void> {
    return retryUntil(() => this.#connect(), {
      clock: this.clock,
      firstMilliseconds: FIRST_RETRY_MILLISECONDS,
      lastMilliseconds: LAST_RETRY_MILLISECONDS,
      signal: this.#closing.signal,
      isOver,
    });
  }

  async #connect(): Promise<void> {
    const timeoutMilliseconds = this.#options.timeoutMilliseconds;
    const client = await QmpClient.connect(this.path, {
      ...(timeoutMilliseconds === undefined ? {} : { timeoutMilliseconds }),
      onEvent: (event) => this.#takeEvent(event),
      clock: this.clock,
      signal: this.#closing.signal,
    });
    this.#client = client;
    this.#identity = identityOf(this.path);
    try {
      await this.refreshStatus();
    } catch (error) {
      client.close();
      throw error;
    }
    void client.closed.then((reason) => this.#lost(reason));
  }

  #takeEvent({ event, data, milliseconds }: QmpEvent): void {
    if (event === 'STOP' || event === 'RESUME') {
      this.#stateChanges++;
      this.#isRunning = event === 'RESUME';
      if (this.#isRunning) {
        this.resumedAt = milliseconds;
      } else {
        this.stoppedAt = milliseconds;
      }
      this.#status = this.#isRunning ? 'running' : 'paused';
      if (this.#isRunning) {
        this.listener?.resumed();
      }
    } else if (event === 'RESET') {
      this.listener?.machineReset();
    } else if (event === 'SHUTDOWN') {
      this.#isShutDown = true;
    } else if (MEMORY_EVENTS.includes(event)) {
      this.listener?.memoryChanged();
    } else if (event === 'MIGRATION') {
      this.listener?.migrating(migrationStatus(data)?.status ?? '');
    }
  }

  async #lost(reason: Error | undefined): Promise<void> {
    this.#isRunning = false;
    const before = this.#identity;
    if (this.#closing.signal.aborted) {
      return;
    }
    const { log } = this.#options;
    const next = this.#options.expectsAnother === false ? '' : '; waiting for another';
    if (this.#isShutDown) {
      log.info(`QEMU has ended${next}`, { qmp: this.path });
    } else {
      log.warn(`${reason?.message ?? 'QMP closed'}; trying to reconnect`, { qmp: this.path });
    }
    this.#isShutDown = false;
    // QEMU's socket is not there again at once.
    await elapsed(this.clock, FIRST_RETRY_MILLISECONDS, this.#closing.signal);
    try {
      await this.#retry((error) => {
        log.debug((error as Error).message, { qmp: this.path });
        return false;
      });
    } catch {
      // It was closed meanwhile.
      return;
    }
    const isSameQemu = this.#identity === before;
    log.info('QMP is connected again', { qmp: this.path, isSameQemu });
    await this.listener?.reconnected(isSameQemu).catch((error: Error) => {
      log.error(error.message, { qmp: this.path });
    });
  }
}

/** A QEMU makes its socket file anew when it starts, so the file tells processes apart. */
function identityOf(path: string): string {
  try {
    const { ino, birthtimeNs } = statSync(path, { bigint: true });
    return `${ino}:${birthtimeNs}`;
  } catch {
    return 'no file';
  }
}
