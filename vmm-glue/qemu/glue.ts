// The glue of one stock QEMU: puts the VFs of all its backends where the guest expects them, by QMP.
// One per QEMU (a second one is refused); used by the commands `qemu` and `attach-qemu`.

import type { Clock, Timer } from '../../protocol/clock.ts';
import type { Log } from '../../protocol/log.ts';
import { limitedLog } from '../../protocol/log-limit.ts';
import { printable } from '../../protocol/printable.ts';
import { backgroundClock, processClock } from '../../protocol/unix/process-clock.ts';
import { programName } from '../../protocol/unix/program-version.ts';
import { failedCall, UserError } from '../../protocol/user-error.ts';
import { isOtherVersion } from '../../protocol/vfio-user/negotiation.ts';
import type { HotplugSource } from '../choreography/backend-channel.ts';
import { type Backend, Choreography } from '../choreography/choreography.ts';
import type { EnableTiming } from '../choreography/enable.ts';
import { VfioUserClient } from '../client/client.ts';
import { GlueReport } from './glue-report.ts';
import { Monitor } from './monitor.ts';
import { PauseRecord } from './pause-record.ts';
import { QemuControl } from './qemu-control.ts';
import type { QemuGuest } from './qemu-guest.ts';
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
  /** Gives up attaching; once attached, `close()` ends it. */
  readonly signal?: AbortSignal;
  /** Another QEMU may open the QMP socket after this one; true by default. */
  readonly expectsAnother?: boolean;
  /** The longest that an enable may keep the guest paused; default 20000. */
  readonly enableLimitMilliseconds?: number;
  readonly clock?: Clock;
  /** Why this QEMU has no ports for carriers, where that is known: what `status` says of VFs. */
  readonly whyTrapped?: string;
  readonly onTiming?: (timing: EnableTiming) => void;
  /** Connects to a backend; by default over its unix socket. */
  readonly connectBackend?: (socketPath: string) => Promise<HotplugSource>;
}

const DEFAULT_COMMAND = 5_000;
/** From the first answer of QEMU's on: it has a few commands to answer for each device. */
const ATTACH_MILLISECONDS = 60_000;

export class QemuGlue {
  /** Resolves when every backend has gone. */
  readonly ended: Promise<void>;
  readonly #monitor: Monitor;
  readonly #record: PauseRecord;
  readonly #guest: QemuGuest;
  readonly #choreography: Choreography;

  /**
   * Attaches to QEMU and to every backend. Rejects with UserError where the QMP socket has another glue or QEMU has
   * not the devices, with QmpUnavailableError, and with the client's errors where a backend is not there.
   */
  static async start(given: GlueOptions): Promise<QemuGlue> {
    // Nearly every line is one that the guest or QEMU can cause at will.
    const options = { ...given, log: limitedLog(given.log, given.clock ?? backgroundClock) };
    // Before the connection: QEMU leaves a second client of its monitor without an answer.
    const record = PauseRecord.open(options.qmpPath);
    const attempt = new AbortController();
    const giveUp = (): void => attempt.abort(options.signal?.reason);
    options.signal?.addEventListener('abort', giveUp);
    const backends: Backend[] = [];
    const report = new GlueReport(clockOf(options), () => backends.map(({ source }) => source));
    let limit: Timer | undefined;
    try {
      options.signal?.throwIfAborted();
      const monitor = await Monitor.open(options.qmpPath, {
        log: options.log,
        timeoutMilliseconds: options.commandMilliseconds ?? DEFAULT_COMMAND,
        patienceMilliseconds: options.patienceMilliseconds ?? 0,
        expectsAnother: options.expectsAnother ?? true,
        clock: clockOf(options),
        signal: attempt.signal,
        onCommand: (text, askedAt, answeredAt) => report.command(text, askedAt, answeredAt),
      });
      limit = clockOf(options).after(ATTACH_MILLISECONDS, () => attempt.abort(tooSlow(options)));
      return await attach(options, monitor, record, backends, attempt.signal);
    } catch (error) {
      const { aborted, reason } = attempt.signal;
      attempt.abort();
      for (const { source } of backends) {
        source.close();
      }
      record.close();
      throw aborted ? reason : error;
    } finally {
      limit?.cancel();
      options.signal?.removeEventListener('abort', giveUp);
    }
  }

  /** Of what `start` has put together. */
  constructor(
    monitor: Monitor,
    record: PauseRecord,
    guest: QemuGuest,
    choreography: Choreography,
    ended: Promise<void>,
  ) {
    this.#monitor = monitor;
    this.#guest = guest;
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
    this.#guest.close();
    this.#monitor.close();
    this.#record.close();
  }
}

async function attach(
  options: GlueOptions,
  monitor: Monitor,
  record: PauseRecord,
  backends: Backend[],
  signal: AbortSignal,
): Promise<QemuGlue> {
  const { log, socketPaths } = options;
  const vmm = new QemuControl({
    monitor,
    record,
    log,
    clock: clockOf(options),
    socketPaths,
    whyTrapped: options.whyTrapped,
    resumed: () => choreography.guestRuns(),
    reconnected: (isSameQemu) => choreography.reconnected(isSameQemu),
  });
  const choreography = new Choreography({ ...options, vmm, clock: clockOf(options) });
  try {
    await choreography.inherit();
    await vmm.findDevices();
    await warmUp(vmm.guest);
    // Last, because a backend counts on its glue as soon as it is connected.
    for (const name of socketPaths) {
      const source = await (options.connectBackend ?? connectBackend)(name);
      backends.push({ name, source });
      signal.throwIfAborted();
    }
    return new QemuGlue(monitor, record, vmm.guest, choreography, choreography.serve(backends));
  } catch (error) {
    vmm.guest.close();
    throw error;
  }
}

function clockOf(options: GlueOptions): Clock {
  return options.clock ?? processClock;
}

function tooSlow({ qmpPath }: GlueOptions): UserError {
  return new UserError(
    `QMP socket ${qmpPath}: attaching took longer than ${ATTACH_MILLISECONDS / 1000} s`,
    'look whether this QEMU hangs, or is short of CPU time',
  );
}

async function connectBackend(path: string): Promise<HotplugSource> {
  const fix =
    'start one with "vfio-user-sriov serve" first, and give the path of its --socket-path';
  const program = programName();
  let client: VfioUserClient;
  try {
    client = await VfioUserClient.connect(path, {
      capabilities: { sriov_hotplug: { version: 1, role: 'glue', program } },
    });
  } catch (error) {
    throw failedCall(error, fix, `backend at ${path}`);
  }
  const backend = client.agreed.hotplug?.program;
  if (isOtherVersion(program, backend)) {
    client.close();
    throw new UserError(
      `backend at ${path}: it is ${printable(backend!)}, and this glue ${program}`,
      'use the glue that came with the backend, or start the VM anew with a backend of this version',
    );
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
