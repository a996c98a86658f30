// The device thread: where sessions, config space and the SR-IOV machine run. Started as a worker by device-thread.ts.
// Nothing here waits for the host; whatever takes longer than a system call is asked of the main thread.

import { resolve } from 'node:path';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import {
  carrierSocketPath,
  isSocketPath,
  vfSocketPath,
} from '../../protocol/launch/socket-names.ts';
import { fromLevel, logInto } from '../../protocol/log.ts';
import { limitedSink } from '../../protocol/log-limit.ts';
import { drainEventFd } from '../../protocol/unix/eventfd.ts';
import { streamSocketKind } from '../../protocol/unix/fd-socket.ts';
import { threadCpuMilliseconds } from '../../protocol/unix/libc.ts';
import { monotonicNanoseconds } from '../../protocol/unix/process-clock.ts';
import { SyscallError } from '../../protocol/unix/syscall-error.ts';
import { UserError } from '../../protocol/user-error.ts';
import { Observers } from '../device/observer.ts';
import { HostError, type HostLink } from '../device/physical-device.ts';
import { KINDS, loadKind } from '../devices/registry.ts';
import { ArmedFaults } from '../faults/armed-faults.ts';
import { faultyHost } from '../faults/faulty-host.ts';
import { SriovDevice } from '../hotplug/sriov-device.ts';
import { Activity } from '../metrics/activity.ts';
import { TurnTime } from '../metrics/turn-time.ts';
import { UnixServer } from '../server/unix-server.ts';
import { decodedWrites, narration, phaseChanges } from '../trace/narration.ts';
import { observedHost } from '../trace/observed-host.ts';
import { Tracing } from '../trace/tracing.ts';
import { EventLoop } from './event-loop.ts';
import type { DeviceThreadOptions, ToDeviceThread, ToMainThread } from './thread-messages.ts';
import { isGivenUp, turn } from './watchdog.ts';

/** A slot serves one client; a few more are there while they come and go. */
const MOST_SLOT_CONNECTIONS = 8;
const RETRY_MILLISECONDS = 1000;
/** By then the guest runs on that stood still for its VFs. */
const SAY_LATER_MILLISECONDS = 50;

type Reply = (error: HostError | undefined, reply: never) => void;

const options = workerData as DeviceThreadOptions;
const kind = await loadKind(options.kind);
const port = parentPort!;
const waiting = new Map<number, Reply>();
let lastRequest = 0;

const tell = (message: ToMainThread): void => port.postMessage(message);

const loop = new EventLoop(options.spinMicroseconds, faulted);

const log = logInto(
  fromLevel(
    options.logLevel,
    limitedSink((level, message, fields) => tell({ type: 'log', level, message, fields }), loop),
  ),
);

const observers = new Observers();

const faults = new ArmedFaults({
  device: {
    kind: options.kind,
    description: options.description,
    faults: kind.faults,
    otherKinds: Object.keys(KINDS),
  },
  clock: loop,
  log,
  functions: () => [device.pf, ...device.vfs],
});

const host: HostLink = faultyHost(
  observedHost(
    {
      request(name, args, done) {
        const id = ++lastRequest;
        waiting.set(id, done as Reply);
        tell({ type: 'request', id, name, args });
      },
    },
    observers,
    loop,
  ),
  faults,
  loop,
);

const server = new UnixServer(loop, log, (fd) => tell({ type: 'closePeerFile', fd }));
observers.add(
  narration(
    log,
    () => loop.now(),
    (say) => void loop.after(SAY_LATER_MILLISECONDS, say),
  ),
);
if (options.logLevel === 'debug' || options.logLevel === 'trace') {
  observers.add(decodedWrites(log, options.description, options.logLevel === 'trace'));
}
const activity = options.hasMetrics === true ? new Activity() : undefined;
const turnTime =
  activity === undefined ? undefined : new TurnTime(threadCpuMilliseconds, monotonicNanoseconds);
if (activity !== undefined) {
  observers.add(activity);
}
const tracing = new Tracing({
  description: options.description,
  observers,
  log,
  now: () => loop.now(),
  pfConfig: () => device.pf.configSnapshot(),
  sessions: () =>
    server.sessions
      .filter(({ agreed }) => agreed !== undefined)
      .map(({ endpoint, role, agreed }) => ({
        name: endpoint.function.name,
        detail: { role, ...agreed },
      })),
});
const { turnCount } = options;
const countTurn = (): void => {
  if (turnCount !== undefined) {
    turn(turnCount);
  }
};

// Loading it runs code of the device's, and so does making the PF, as any turn does.
countTurn();
await orRefused(() => kind.load?.());
countTurn();
if (turnCount !== undefined && isGivenUp(turnCount)) {
  process.exit();
}

countTurn();
const device: SriovDevice = await orRefused(
  () =>
    new SriovDevice({
      description: options.description,
      pf: options.pf,
      limits: {
        plugMilliseconds: options.plugMilliseconds,
        unplugMilliseconds: options.unplugMilliseconds,
        retryMilliseconds: RETRY_MILLISECONDS,
      },
      host,
      log,
      observers,
      tracing,
      faults,
      openFunction: (handle, generation, wires) =>
        kind.openFunction(handle, { generation, wires, host, clock: loop, log, faults }),
      clock: loop,
      connectVf: (endpoint) => server.pair(endpoint),
      vfSocketPath: slotSocketPath,
      carrierSocketPath: carrierPath,
      sessions: () => server.sessions,
    }),
);
countTurn();

if (options.tellsPhases === true) {
  observers.add(
    phaseChanges((phase) => {
      tell({ type: 'phase', phase, vfs: device.pf.sriov.vfEnable ? device.pf.sriov.numVfs : 0 });
    }),
  );
}

/** What is made, or the main thread knows why it is not, and this one ends. */
async function orRefused<T>(make: () => T | Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (error) {
    if (!(error instanceof UserError)) {
      throw error;
    }
    const { what, fix } = error;
    tell({ type: 'refused', why: { what, fix } });
    tell({ type: 'stopped' });
    process.exit();
  }
}

/** A timer of the loop that this thread serves everybody by: it stops where that stops. */
function tellAlive(milliseconds: number): void {
  tell({ type: 'alive' });
  loop.after(milliseconds, () => tellAlive(milliseconds));
}

loop.turnBegan = () => {
  countTurn();
  turnTime?.began();
};
loop.turnEnded = () => {
  countTurn();
  turnTime?.ended();
  if (!observers.isEmpty) {
    observers.turnEnded();
  }
};

function slotSocketPath(vfIndex: number): string {
  return vfSocketPath(options.vfSockets ?? '.', vfIndex);
}

/** QEMU may run in another folder. Undefined where there is no folder, or the path is longer than a socket's. */
function carrierPath(vfIndex: number): string | undefined {
  const folder = options.vfSockets;
  const path = folder === undefined ? undefined : carrierSocketPath(resolve(folder), vfIndex);
  return path !== undefined && isSocketPath(path) ? path : undefined;
}

function take(message: ToDeviceThread): void {
  switch (message.type) {
    case 'reply': {
      const done = waiting.get(message.id);
      waiting.delete(message.id);
      done?.(undefined, message.reply as never);
      break;
    }
    case 'failed': {
      const { call, errno, path, what, fix } = message.failure;
      const done = waiting.get(message.id);
      waiting.delete(message.id);
      done?.(new HostError(call, errno, path, what, fix), undefined as never);
      break;
    }
    case 'vfLost':
      device.vfLost(message.vfIndex);
      break;
    case 'pfLost':
      device.pf.releaseRequested();
      break;
    case 'measure':
      if (activity !== undefined && turnTime !== undefined) {
        const measurement = {
          status: device.status(),
          activity: activity.counts,
          longestTurn: turnTime.takeLongest(),
        };
        tell({ type: 'measured', measurement });
      }
      break;
    case 'stop':
      device.shutDown(() => loop.stop());
      break;
    default:
      message satisfies never;
  }
}

function listen(): void {
  const { access } = options;
  const ofSlot = { access, mostConnections: MOST_SLOT_CONNECTIONS };
  if (options.vfSockets !== undefined) {
    for (const { index } of device.vfs) {
      server.listen(slotSocketPath(index), device.vfEndpoint(index, false), ofSlot);
    }
    for (const [index, carrier] of device.carriers.entries()) {
      const path = carrierPath(index);
      if (path !== undefined) {
        server.listen(path, { function: carrier, native: false }, ofSlot);
      }
    }
  }
  if ('path' in options.socket) {
    server.listen(options.socket.path, device.pfEndpoint, { access });
  } else if (streamSocketKind(options.socket.fd) === 'listening') {
    server.listenOn(options.socket.fd, device.pfEndpoint);
  } else {
    server.adopt(options.socket.fd, device.pfEndpoint, () => tell({ type: 'clientGone' }));
  }
}

/** True, or the main thread knows why not. */
function armsFaults(): boolean {
  for (const rule of options.faults ?? []) {
    const problem = faults.add(rule);
    if (problem !== undefined) {
      const { position, what, fix } = problem;
      tell({
        type: 'refused',
        why: { what: `--fault: ${what}`, fix },
        excerpt: { text: rule, position },
      });
      return false;
    }
  }
  return true;
}

/** True, or the main thread knows why not. */
function listens(): boolean {
  try {
    listen();
    return true;
  } catch (error) {
    if (!(error instanceof SyscallError)) {
      throw error;
    }
    const { what, fix, errno, call, path } = error;
    tell({ type: 'refused', why: { what, fix, errno, call, path } });
    return false;
  }
}

/** Whoever caused it has lost what it asked for; the others go on. */
function faulted(error: unknown): void {
  log.error('a fault of this program', {
    stack: error instanceof Error ? error.stack : String(error),
  });
}

loop.watch(options.wakeFd, {
  readable: () => {
    drainEventFd(options.wakeFd);
    for (let next = receiveMessageOnPort(port); next !== undefined; ) {
      try {
        take(next.message as ToDeviceThread);
      } catch (error) {
        faulted(error);
      }
      next = receiveMessageOnPort(port);
    }
  },
});

try {
  if (options.traceFd !== undefined) {
    tracing.start(options.traceFd, true);
  }
  if (armsFaults() && listens()) {
    tell({ type: 'ready' });
    if (options.aliveMilliseconds !== undefined) {
      tellAlive(options.aliveMilliseconds);
    }
    loop.run();
  }
  // Its last callbacks, which may not return either.
  countTurn();
  device.pf.close();
  countTurn();
  tell({ type: 'stopped' });
} finally {
  server.close();
  tracing.stop();
  port.close();
  loop.close();
}
// What a card of somebody's own has left behind, such as timers of Node's, is not waited for.
process.exit();
