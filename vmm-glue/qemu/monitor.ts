// The glue's line to one QEMU: a QMP connection that comes back when it breaks, the run state followed by events,
// and QEMU's monitor commands for I/O ports. guest-pause.ts and glue.ts stand on it.
import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../../protocol/log.ts';
import type { PortWrite } from './placement.ts';
import { QmpClient, QmpError, type QmpEvent, QmpUnavailableError } from './qmp.ts';

export interface MonitorOptions {
  readonly log: Log;
  /** For the connection and for each command. */
  readonly timeoutMilliseconds?: number;
  /** How long to go on trying when the first connection finds nobody; 0 by default. */
  readonly patienceMilliseconds?: number;
  /** False ends those tries early. */
  readonly isWanted?: () => boolean;
}

/** What the owner of a monitor does about what happens in QEMU. */
export interface MonitorListener {
  /** The machine was reset: devices are as after power-on. */
  machineReset(): void;
  /** The guest's CPUs run again, whoever let them. */
  resumed(): void;
  /** The connection is back; commands work from now on. `isSameQemu`: it is still the process from before. */
  reconnected(isSameQemu: boolean): Promise<void>;
}

const FIRST_RETRY_MILLISECONDS = 20;
const LAST_RETRY_MILLISECONDS = 1_000;
const WIDTH_LETTERS = { 2: 'h', 4: 'w' } as const;

export class Monitor {
  readonly path: string;
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
  #isClosed = false;
  #isShutDown = false;

  /** Connects and learns the run state. Rejects with QmpUnavailableError or QmpError. */
  static async open(path: string, options: MonitorOptions): Promise<Monitor> {
    const monitor = new Monitor(path, options);
    const deadline = Date.now() + (options.patienceMilliseconds ?? 0);
    for (let delay = FIRST_RETRY_MILLISECONDS; ; delay = nextDelay(delay)) {
      try {
        await monitor.#connect();
        return monitor;
      } catch (error) {
        if (Date.now() >= deadline || options.isWanted?.() === false) {
          throw error;
        }
      }
      await sleep(delay);
    }
  }

  private constructor(path: string, options: MonitorOptions) {
    this.path = path;
    this.#options = options;
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
    const answer = await this.#connectedClient().execute(command, args, timeoutMilliseconds);
    this.commandCount++;
    return answer;
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
    const text = await this.#humanCommand(`i /w 0x${port.toString(16)}`, true);
    const match = /=\s*0x([0-9a-f]+)/i.exec(text);
    if (match === null) {
      throw new QmpError('human-monitor-command', 'GenericError', `reading a port gave ${text}`);
    }
    return Number.parseInt(match[1]!, 16);
  }

  /** Asks for the run state; events keep it up to date from then on. */
  async refreshStatus(): Promise<void> {
    const changes = this.#stateChanges;
    const answer = Object(await this.execute('query-status')) as Record<string, unknown>;
    this.#status = String(answer.status ?? '');
    // An event that came meanwhile is not older than the answer.
    if (changes === this.#stateChanges) {
      this.#isRunning = answer.running === true;
    }
  }

  close(): void {
    this.#isClosed = true;
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
    const text = String(
      await this.execute('human-monitor-command', { 'command-line': line }),
    ).trim();
    if (text !== '' && !expectsText) {
      throw new QmpError(`human-monitor-command "${line}"`, 'GenericError', text);
    }
    return text;
  }

  async #connect(): Promise<void> {
    const timeoutMilliseconds = this.#options.timeoutMilliseconds;
    const client = await QmpClient.connect(this.path, {
      ...(timeoutMilliseconds === undefined ? {} : { timeoutMilliseconds }),
      onEvent: (event) => this.#takeEvent(event),
    });
    this.#client = client;
    this.#identity = identityOf(this.path);
    try {
      await this.refreshStatus();
    } catch (error) {
      client.close();
      throw error;
    }
    if (this.#isClosed) {
      client.close();
    }
    void client.closed.then((reason) => this.#lost(reason));
  }

  #takeEvent({ event, milliseconds }: QmpEvent): void {
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
    }
  }

  async #lost(reason: Error | undefined): Promise<void> {
    this.#isRunning = false;
    const before = this.#identity;
    if (this.#isClosed) {
      return;
    }
    const { log } = this.#options;
    // Whoever gives `isWanted` has started this very QEMU, and waits for no other.
    const next = this.#options.isWanted === undefined ? '; waiting for another' : '';
    if (this.#isShutDown) {
      log.info(`QEMU has ended${next}`, { qmp: this.path });
    } else {
      log.warn(`${reason?.message ?? 'QMP closed'}; trying to reconnect`, { qmp: this.path });
    }
    this.#isShutDown = false;
    for (let delay = FIRST_RETRY_MILLISECONDS; !this.#isClosed; delay = nextDelay(delay)) {
      await sleep(delay, undefined, { ref: false });
      try {
        if (this.#isClosed) {
          return;
        }
        await this.#connect();
      } catch (error) {
        log.debug((error as Error).message, { qmp: this.path });
        continue;
      }
      const isSameQemu = this.#identity === before;
      log.info('QMP is connected again', { qmp: this.path, isSameQemu });
      await this.listener?.reconnected(isSameQemu).catch((error: Error) => {
        log.error(error.message, { qmp: this.path });
      });
      return;
    }
  }
}

function nextDelay(delay: number): number {
  return Math.min(delay * 2, LAST_RETRY_MILLISECONDS);
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
