// What a backend tells systemd where that has started it: sd_notify(3), and sd_watchdog_enabled(3). Without systemd it
// tells nobody.
import type { Clock, Timer } from '../../protocol/clock.ts';
import { situationOf } from '../../protocol/explained-error.ts';
import type { SriovPhase } from '../../protocol/hotplug/status.ts';
import { parseWholeNumber } from '../../protocol/launch/option-values.ts';
import type { Log } from '../../protocol/log.ts';
import { DatagramSocket } from '../../protocol/unix/datagram-socket.ts';

/** Where the SR-IOV machine stands, as one line tells it. */
export interface ServiceState {
  readonly device: string;
  readonly phase: SriovPhase;
  /** VFs that the guest has enabled. */
  readonly vfs: number;
  readonly totalVfs: number;
}

/** Who hears of it. */
export interface Recipient {
  /** False where it has no room now: systemd reads when it gets round to it, and a few datagrams wait for it at most. */
  send(text: string): boolean;
}

const MICROSECONDS = 1000;
/** As sd_watchdog_enabled(3) advises: half of what is allowed. */
const SIGNS_IN_LIMIT = 2;
const AGAIN_MILLISECONDS = 100;

export class ServiceManager {
  readonly #recipient: Recipient | undefined;
  readonly #clock: Clock;
  /** What there was no room for: the newest value by its name. */
  readonly #owed = new Map<string, string>();
  #again: Timer | undefined;
  /** How often `alive` is to be called; undefined where nobody waits for it. */
  readonly aliveMilliseconds: number | undefined;

  constructor(recipient: Recipient | undefined, clock: Clock, aliveMilliseconds?: number) {
    this.#recipient = recipient;
    this.#clock = clock;
    this.aliveMilliseconds = recipient === undefined ? undefined : aliveMilliseconds;
  }

  /** Whoever the environment names; that nobody listens there costs a line of the log. */
  static of(environment: NodeJS.ProcessEnv, log: Log, clock: Clock): ServiceManager {
    const address = environment.NOTIFY_SOCKET;
    if (address === undefined || address === '') {
      return new ServiceManager(undefined, clock);
    }
    try {
      const socket = new DatagramSocket(address);
      return new ServiceManager(socket, clock, aliveMilliseconds(environment));
    } catch (error) {
      log.warn(`systemd is told nothing: NOTIFY_SOCKET: ${situationOf(error)}`);
      return new ServiceManager(undefined, clock);
    }
  }

  /** Somebody hears what is told. */
  get isThere(): boolean {
    return this.#recipient !== undefined;
  }

  /** Clients can connect. */
  ready(state: ServiceState): void {
    this.#owed.set('READY', '1');
    this.changed(state);
  }

  changed(state: ServiceState): void {
    this.#owed.set('STATUS', statusLine(state));
    this.#tell();
  }

  /** The device thread has come round. One of these may get lost; sent later, it would say what is not so any more. */
  alive(): void {
    this.#recipient?.send('WATCHDOG=1');
  }

  stopping(): void {
    this.#owed.set('STOPPING', '1').set('STATUS', 'taking the VFs away');
    this.#tell();
  }

  #tell(): void {
    this.#again?.cancel();
    const text = Array.from(this.#owed, ([name, value]) => `${name}=${value}`).join('\n');
    if (this.#recipient === undefined || this.#recipient.send(text)) {
      this.#owed.clear();
    } else {
      this.#again = this.#clock.after(AGAIN_MILLISECONDS, () => this.#tell());
    }
  }
}

/** `0000:01:00.0: SR-IOV enabled, 4 of 7 VFs` */
export function statusLine({ device, phase, vfs, totalVfs }: ServiceState): string {
  return `${device}: SR-IOV ${phase}, ${vfs} of ${totalVfs} VFs`;
}

/** Undefined where systemd watches nobody, or another process. */
function aliveMilliseconds({ WATCHDOG_USEC, WATCHDOG_PID }: NodeJS.ProcessEnv): number | undefined {
  const limit = parseWholeNumber(WATCHDOG_USEC ?? '', 1);
  const isOurs = WATCHDOG_PID === undefined || WATCHDOG_PID === String(process.pid);
  return limit === undefined || !isOurs ? undefined : limit / MICROSECONDS / SIGNS_IN_LIMIT;
}
