// The glue of one stock QEMU: puts the VFs of all its backends where the guest expects them, by QMP.
// One per QEMU (a second one is refused); used by the commands `qemu` and `attach-qemu`.

import type { Clock } from '../../protocol/clock.ts';
import { situationOf } from '../../protocol/explained-error.ts';
import type { Log } from '../../protocol/log.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { UserError } from '../../protocol/user-error.ts';
import type { HotplugSource } from '../choreography/backend-channel.ts';
import { type Backend, Choreography } from '../choreography/choreography.ts';
import type { EnableTiming } from '../choreography/enable.ts';
import { VfioUserClient } from '../client/client.ts';
import { Monitor } from './monitor.ts';
import { PauseRecord } from './pause-record.ts';
import { QemuControl } from './qemu-control.ts';
import { warmUp } from './warm-up.ts';

export interface GlueOptions {
  readonly qmpPath: string;
  /** The PF sockets of the backends, in the order of their devices' ids. */
  readonly socketPaths: readonly string[];
  readonly log: Log;
  /** For each QMP command; default 5000. */
  readonly commandMilliseconds?: number;
  /** How long to wait for QEMU to open its QMP socket; default 0. */
  readonly patienceMilliseconds?: number;
  /** False when waiting for it has become pointless. */
  readonly isWanted?: () => boolean;
  /** The longest that an enable may keep the guest paused; default 20000. */
  readonly enableLimitMilliseconds?: number;
  readonly clock?: Clock;
  readonly onTiming?: (timing: EnableTiming) => void;
  /** Connects to a backend; by default over its unix socket. */
  readonly connectBackend?: (socketPath: string) => Promise<HotplugSource>;
}

const DEFAULT_COMMAND = 5_000;

export class QemuGlue {
  /** Resolves when every backend has gone. */
  readonly ended: Promise<void>;
  readonly #monitor: Monitor;
  readonly #record: PauseRecord;
  readonly #choreography: Choreography;

  /**
   * Attaches to QEMU and to every backend. Rejects with UserError where the QMP socket has another glue or QEMU has
   * not the devices, with QmpUnavailableError, and with the client's errors where a backend is not there.
   */
  static async start(options: GlueOptions): Promise<QemuGlue> {
    const { log } = options;
    // Before the connection: QEMU leaves a second client of its monitor without an answer.
    const record = PauseRecord.open(options.qmpPath);
    let monitor: Monitor | undefined;
    const backends: Backend[] = [];
    try {
      monitor = await Monitor.open(options.qmpPath, {
        log,
        timeoutMilliseconds: options.commandMilliseconds ?? DEFAULT_COMMAND,
        patienceMilliseconds: options.patienceMilliseconds ?? 0,
        ...(options.isWanted === undefined ? {} : { isWanted: options.isWanted }),
      });
      const vmm = new QemuControl({
        monitor,
        record,
        log,
        socketPaths: options.socketPaths,
        reconnected: (isSameQemu) => choreography.reconnected(isSameQemu),
      });
      const choreography = new Choreography({
        ...options,
        vmm,
        clock: options.clock ?? processClock,
      });
      await choreography.inherit();
      await vmm.findDevices();
      await warmUp(monitor);
      // Last, because a backend counts on its glue as soon as it is connected.
      for (const name of options.socketPaths) {
        const source = await (options.connectBackend ?? connectBackend)(name);
        backends.push({ name, source });
      }
      return new QemuGlue(monitor, record, choreography, choreography.serve(backends));
    } catch (error) {
      for (const { source } of backends) {
        source.close();
      }
      record.close();
      monitor?.close();
      throw error;
    }
  }

  private constructor(
    monitor: Monitor,
    record: PauseRecord,
    choreography: Choreography,
    ended: Promise<void>,
  ) {
    this.#monitor = monitor;
    this.#record = record;
    this.#choreography = choreography;
    this.ended = ended;
  }

  /** Starts a machine that waits for it (`-S`). */
  async continueGuest(): Promise<void> {
    await this.#monitor.execute('cont');
  }

  /** Lets the guest run on, and everything go. */
  async close(): Promise<void> {
    await this.#choreography.close();
    this.#monitor.close();
    this.#record.close();
  }
}

async function connectBackend(path: string): Promise<HotplugSource> {
  const fix =
    'start one with "vfio-user-sriov serve" first, and give the path of its --socket-path';
  let client: VfioUserClient;
  try {
    client = await VfioUserClient.connect(path, {
      capabilities: { sriov_hotplug: { version: 1, role: 'glue' } },
    });
  } catch (error) {
    throw new UserError(`backend at ${path}: ${situationOf(error)}`, fix);
  }
  if (client.hasHotplug) {
    return client;
  }
  client.close();
  throw new UserError(
    `backend at ${path}: it does not plug VFs, it is another vfio-user server`,
    fix,
  );
}
