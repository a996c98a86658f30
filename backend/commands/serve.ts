// `serve`: the backend. The composition root of the main thread: options, log, device, device thread, signals.

import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Command } from 'commander';
import { situationOf } from '../../protocol/explained-error.ts';
import type { SriovPhase } from '../../protocol/hotplug/status.ts';
import { activatedFd } from '../../protocol/launch/activation.ts';
import { formatReadyLine, type MemoryBar, type Ready } from '../../protocol/launch/ready-line.ts';
import { limitedLog } from '../../protocol/log-limit.ts';
import { makeLog } from '../../protocol/logging/stderr-log.ts';
import { onEndingSignal } from '../../protocol/unix/ending-signals.ts';
import { backgroundClock, processClock } from '../../protocol/unix/process-clock.ts';
import { UserError } from '../../protocol/user-error.ts';
import type { PhysicalDevice } from '../device/physical-device.ts';
import { loadKind } from '../devices/registry.ts';
import type { MetricsServer } from '../metrics/metrics-server.ts';
import type { BarShape } from '../pci/bars.ts';
import { ServiceManager, type ServiceState } from '../service/service-manager.ts';
import { DeviceThread } from '../thread/device-thread.ts';
import { backendCapabilities } from './capabilities.ts';
import {
  addServeOptions,
  deviceKindOf,
  type ServeOptions,
  SPIN_MICROSECONDS,
} from './serve-options.ts';
import { accessOf, makeSocketFolder, socketOf } from './socket-options.ts';
import { refuseSizeAlone, traceFileOf } from './trace-options.ts';
import { trapped } from './trap.ts';

const STDOUT = 1;

export function serveCommand(): Command {
  const command = new Command('serve')
    .description(
      'Serves one SR-IOV physical function to one VM over vfio-user, until SIGTERM or Ctrl-C. When clients can connect it prints ' +
        'one line, `ready …`, on standard output; logs go to standard error.',
    )
    .addHelpText(
      'after',
      '\nExample:\n  vfio-user-sriov serve --loopback --socket-path=/tmp/pf.sock --vf-sockets=/tmp/vfs\n',
    )
    .action(serve);
  addServeOptions(command);
  return command;
}

async function serve(options: ServeOptions): Promise<void> {
  if (options.printCapabilities === true) {
    process.stdout.write(`${JSON.stringify(backendCapabilities())}\n`);
    return;
  }
  refuseSizeAlone(options);
  const socket = socketOf(options, activatedFd(process.env, process.pid));
  const access = accessOf(options);
  if (options.vfSockets !== undefined) {
    makeSocketFolder(options.vfSockets, access);
  }
  const kind = deviceKindOf(options);
  const log = await makeLog(options);
  // For what the guest and its VMM can cause at will.
  const theirLog = limitedLog(log, backgroundClock);
  const serviceManager = ServiceManager.of(process.env, log, backgroundClock);
  // From here on: opening a device takes a while, and leaves VFs where it is cut off.
  const ending = new AbortController();
  onEndingSignal(log, () => ending.abort());
  const { open, mayLoop, sourceStack } = await loadKind(kind);
  const device = await unlessEnded(
    open(options, { log: theirLog, clock: processClock, ending: ending.signal }),
    ending.signal,
  );
  if (device === undefined) {
    return;
  }
  let metrics: MetricsServer | undefined;
  try {
    metrics = await metricsAt(options);
    const traceFile = traceFileOf(options);
    const { name, totalVfs } = device.description;
    const state = (phase: SriovPhase, vfs: number): ServiceState => ({
      device: name,
      phase,
      vfs,
      totalVfs,
    });
    const thread = new DeviceThread({
      kind,
      mayLoop: mayLoop === true,
      sourceStack,
      device,
      clock: backgroundClock,
      log,
      theirLog,
      socket,
      vfSockets: options.vfSockets,
      access,
      ...(traceFile === undefined ? {} : { traceFd: traceFile.fd }),
      ...(options.trap === undefined
        ? {}
        : { description: trapped(device.description, options.trap) }),
      spinMicroseconds: options.spin ?? (availableParallelism() > 1 ? SPIN_MICROSECONDS : 0),
      plugMilliseconds: options.plugTimeout,
      unplugMilliseconds: options.unplugTimeout,
      logLevel: options.logLevel,
      faults: options.fault,
      hasMetrics: metrics !== undefined,
      aliveMilliseconds: serviceManager.aliveMilliseconds,
      onAlive: () => serviceManager.alive(),
      onPhase: serviceManager.isThere
        ? (phase, vfs) => serviceManager.changed(state(phase, vfs))
        : undefined,
    });
    const stop = (): void => {
      serviceManager.stopping();
      thread.stop();
    };
    void whenAborted(ending.signal).then(stop);
    void thread.clientGone.then(stop);
    if (options.trap !== undefined) {
      log.warn(
        `nothing of ${options.trap.join(', ')} can be mapped: every access is a message, and slow`,
      );
    }
    try {
      const isReady = thread.ready.then(() => true);
      if (!(await Promise.race([isReady, thread.ended.then(() => false)]))) {
        traceFile?.discard();
        return;
      }
    } catch (error) {
      // The thread looks at its file until it has ended.
      await thread.ended.catch(() => {});
      traceFile?.discard();
      throw error;
    }
    if (metrics !== undefined) {
      metrics.serve(() => thread.measure());
      log.info(`metrics: ${metrics.hint}`);
    }
    try {
      tell(formatReadyLine(readyOf(options, socket, device)));
      serviceManager.ready(state('disabled', 0));
    } catch (error) {
      stop();
      await thread.ended;
      throw error;
    }
    await thread.ended;
  } finally {
    metrics?.close();
    await device.close();
  }
}

/** Undefined where what was to be opened was left off, because it is not wanted any more. */
async function unlessEnded<T>(opening: Promise<T>, ending: AbortSignal): Promise<T | undefined> {
  try {
    return await opening;
  } catch (error) {
    if (ending.aborted && error === ending.reason) {
      return undefined;
    }
    throw error;
  }
}

async function whenAborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) {
    await once(signal, 'abort');
  }
}

/** Loaded on demand: whoever wants none does not wait for it. */
async function metricsAt({ metrics }: ServeOptions): Promise<MetricsServer | undefined> {
  if (metrics === undefined) {
    return undefined;
  }
  const { MetricsServer } = await import('../metrics/metrics-server.ts');
  return MetricsServer.listen(metrics, backgroundClock);
}

/** What a launcher has to know to start its VMM. */
function readyOf(
  { vfSockets }: ServeOptions,
  socket: Ready['socket'],
  { description }: PhysicalDevice,
): Ready {
  return {
    socket,
    vfSocketsFolder: vfSockets,
    totalVfs: description.totalVfs,
    pfBars: memoryBars(description.pf.bars),
    vfBars: memoryBars(description.vfBars),
  };
}

function memoryBars(bars: readonly BarShape[]): MemoryBar[] {
  return bars
    .filter(({ kind }) => kind !== 'io')
    .map(({ kind, ...bar }) => ({ ...bar, is64Bit: kind === 'memory64' }));
}

/** Prints the line that somebody waits for. @throws UserError where it cannot be printed: nobody would ever connect. */
function tell(line: string): void {
  try {
    writeSync(STDOUT, `${line}\n`);
  } catch (error) {
    throw new UserError(
      `the ready line cannot be printed: ${situationOf(error)}`,
      'give serve a standard output that is read or stored',
    );
  }
}
