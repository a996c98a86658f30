// The glue of one stock QEMU: puts the VFs of all its backends where the guest expects them, by QMP.
// One per QEMU (a second one is refused); used by the commands `qemu` and `attach-qemu`.
import { situationOf } from '../../protocol/explained-error.ts';
import type { Log, LogFields } from '../../protocol/log.ts';
import { UserError } from '../../protocol/user-error.ts';
import { VfioUserClient } from '../client/client.ts';
import { BackendChannel, type HotplugSource } from './backend-channel.ts';
import { BusNumbers, findFunctions, findPf, type QemuFunction } from './devices.ts';
import type { EnableTiming } from './enable.ts';
import { GuestPause } from './guest-pause.ts';
import { Monitor } from './monitor.ts';
import { PauseRecord } from './pause-record.ts';
import { PlacementMemory } from './placement.ts';
import { pfDeviceId } from './topology.ts';
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
  readonly onTiming?: (timing: EnableTiming) => void;
  /** Connects to a backend; by default over its unix socket. */
  readonly connectBackend?: (socketPath: string) => Promise<HotplugSource>;
}

const DEFAULT_COMMAND = 5_000;
const DEFAULT_ENABLE_LIMIT = 20_000;

export class QemuGlue {
  /** Resolves when every backend has gone. */
  readonly ended: Promise<void>;
  readonly #monitor: Monitor;
  readonly #record: PauseRecord;
  readonly #pause: GuestPause;
  readonly #channels: BackendChannel[] = [];
  #isClosed = false;

  /**
   * Attaches to QEMU and to every backend. Rejects with UserError where the QMP socket has another glue or QEMU has
   * not the devices, with QmpUnavailableError, and with the client's errors where a backend is not there.
   */
  static async start(options: GlueOptions): Promise<QemuGlue> {
    const { log } = options;
    // Before the connection: QEMU leaves a second client of its monitor without an answer.
    const record = PauseRecord.open(options.qmpPath);
    let monitor: Monitor | undefined;
    const sources: HotplugSource[] = [];
    try {
      monitor = await Monitor.open(options.qmpPath, {
        log,
        timeoutMilliseconds: options.commandMilliseconds ?? DEFAULT_COMMAND,
        patienceMilliseconds: options.patienceMilliseconds ?? 0,
        ...(options.isWanted === undefined ? {} : { isWanted: options.isWanted }),
      });
      const pause = new GuestPause(monitor, record, log);
      await pause.inherit();
      const functions = await findFunctions(monitor);
      for (const [index, path] of options.socketPaths.entries()) {
        findPf(functions, path, pfDeviceId(index));
      }
      await warmUp(monitor);
      // Last, because a backend counts on its glue as soon as it is connected.
      for (const path of options.socketPaths) {
        sources.push(await (options.connectBackend ?? connectBackend)(path));
      }
      return new QemuGlue(options, monitor, record, pause, functions, sources);
    } catch (error) {
      for (const source of sources) {
        source.close();
      }
      record.close();
      monitor?.close();
      throw error;
    }
  }

  private constructor(
    options: GlueOptions,
    monitor: Monitor,
    record: PauseRecord,
    pause: GuestPause,
    firstFunctions: readonly QemuFunction[],
    sources: readonly HotplugSource[],
  ) {
    const { log, socketPaths } = options;
    this.#monitor = monitor;
    this.#record = record;
    this.#pause = pause;
    let functions = firstFunctions;
    const memory = new PlacementMemory(monitor.isFresh);
    const qemu = {
      monitor,
      pause,
      memory,
      buses: new BusNumbers(),
      log,
      functions: () => functions,
      onTiming: (timing: EnableTiming) => {
        log.info(`${timing.placedVfs} VFs placed`, rounded(timing));
        options.onTiming?.(timing);
      },
    };
    monitor.listener = {
      machineReset: () => memory.machineReset(),
      resumed: () => memory.guestRan(),
      reconnected: async (isSameQemu) => {
        // Events of the time in between are lost.
        memory.guestRan();
        if (!isSameQemu) {
          memory.forgetAll(monitor.isFresh);
        }
        await pause.reconnected(isSameQemu);
        functions = await findFunctions(monitor);
      },
    };
    const limit = options.enableLimitMilliseconds ?? DEFAULT_ENABLE_LIMIT;
    for (const [index, source] of sources.entries()) {
      const path = socketPaths[index]!;
      const locate = (): QemuFunction => findPf(functions, path, pfDeviceId(index));
      this.#channels.push(new BackendChannel(path, source, qemu, locate, limit));
    }
    this.ended = Promise.all(
      this.#channels.map(async (channel) => {
        await channel.serve();
        if (this.#isClosed) {
          return;
        }
        log.error('the backend is gone; its devices in QEMU are dead', { backend: channel.name });
      }),
    ).then(() => {});
  }

  /** Starts a machine that waits for it (`-S`). */
  async continueGuest(): Promise<void> {
    await this.#monitor.execute('cont');
  }

  /** Lets the guest run on, and everything go. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.#channels.map((channel) => channel.close()));
    await this.#pause.close();
    this.#monitor.close();
    this.#record.close();
  }
}

/** Times to the microsecond. */
function rounded(timing: EnableTiming): LogFields {
  const round = (value: unknown): unknown =>
    typeof value === 'number' ? Math.round(value * 1000) / 1000 : value;
  return Object.fromEntries(Object.entries(timing).map(([key, value]) => [key, round(value)]));
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
