// What a backend tells systemd where that has started it: sd_notify(3), and sd_watchdog_enabled(3). Without systemd it
// tells nobody.
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
  send(text: string): boolean;
}

const MICROSECONDS = 1000;
/** As sd_watchdog_enabled(3) advises: half of what is allowed. */
const SIGNS_IN_LIMIT = 2;

export class ServiceManager {
  readonly #recipient: Recipient | undefined;
  /** How often `alive` is to be called; undefined where nobody waits for it. */
  readonly aliveMilliseconds: number | undefined;

  constructor(recipient: Recipient | undefined, aliveMilliseconds?: number) {
    this.#recipient = recipient;
    this.aliveMilliseconds = recipient === undefined ? undefined : aliveMilliseconds;
  }

  /** Whoever the environment names; that nobody listens there costs a line of the log. */
  static of(environment: NodeJS.ProcessEnv, log: Log): ServiceManager {
    const address = environment.NOTIFY_SOCKET;
    if (address === undefined || address === '') {
      return new ServiceManager(undefined);
    }
    try {
      return new ServiceManager(new DatagramSocket(address), aliveMilliseconds(environment));
    } catch (error) {
      log.warn(`systemd is told nothing: NOTIFY_SOCKET: ${situationOf(error)}`);
      return new ServiceManager(undefined);
    }
  }

  /** Clients can connect. */
  ready(state: ServiceState): void {
    this.#recipient?.send(`READY=1\nSTATUS=${statusLine(state)}`);
  }

  changed(state: ServiceState): void {
    this.#recipient?.send(`STATUS=${statusLine(state)}`);
  }

  /** The device thread has come round. */
  alive(): void {
    this.#recipient?.send('WATCHDOG=1');
  }

  stopping(): void {
    this.#recipient?.send('STOPPING=1\nSTATUS=taking the VFs away');
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
