// `serve`: the backend. The composition root of the main thread: options, log, device, device thread, signals.

import { availableParallelism } from 'node:os';
import { Command } from 'commander';
import type { Log } from '../../protocol/log.ts';
import { makeLog } from '../../protocol/logging/stderr-log.ts';
import type { PhysicalDevice } from '../device/physical-device.ts';
import { LoopbackDevice } from '../devices/loopback/device.ts';
import { DeviceThread } from '../thread/device-thread.ts';
import { explained } from './host-failure.ts';
import { readyLine } from './ready-line.ts';
import {
  addServeOptions,
  deviceKindOf,
  LOOPBACK_VFS,
  makeSocketFolder,
  type ServeOptions,
  SMALLEST_VF_BAR,
  SPIN_MICROSECONDS,
  socketOf,
} from './serve-options.ts';

export function serveCommand(): Command {
  const command = new Command('serve')
    .summary('serves a PF to one VM')
    .description(
      'Serves one SR-IOV physical function to one VM over vfio-user, until SIGTERM. When clients can connect it prints ' +
        'one line, `ready …`, on standard output; logs go to standard error.',
    )
    .addHelpText(
      'after',
      '\nExample:\n  vfio-user-sriov serve --loopback --socket-path=/tmp/pf.sock --vf-sockets=/tmp/vfs\n',
    )
    .action((options: ServeOptions) => explained(() => serve(options)));
  addServeOptions(command);
  return command;
}

async function serve(options: ServeOptions): Promise<void> {
  const socket = socketOf(options);
  if (options.vfSockets !== undefined) {
    makeSocketFolder(options.vfSockets);
  }
  const log = await makeLog(options);
  const device = await openDevice(options, log);
  try {
    const thread = new DeviceThread({
      device,
      log,
      socket,
      vfSockets: options.vfSockets,
      spinMicroseconds: options.spin ?? (availableParallelism() > 1 ? SPIN_MICROSECONDS : 0),
      plugMilliseconds: options.plugTimeout,
      unplugMilliseconds: options.unplugTimeout,
      logLevel: options.logLevel,
    });
    const stop = (): void => thread.stop();
    process.on('SIGTERM', stop).on('SIGINT', stop);
    void thread.clientGone.then(stop);
    await thread.ready;
    process.stdout.write(`${readyLine(options, device)}\n`);
    await thread.ended;
  } finally {
    await device.close();
  }
}

async function openDevice(options: ServeOptions, log: Log): Promise<PhysicalDevice> {
  const kind = deviceKindOf(options);
  if ('loopback' in kind) {
    return new LoopbackDevice({
      totalVfs: options.totalVfs ?? LOOPBACK_VFS,
      vfBarSize: options.vfBarSize ?? SMALLEST_VF_BAR,
      enableMilliseconds: options.enableDelay ?? 0,
    });
  }
  const { openVfioDevice } = await import('../devices/vfio/open-vfio-device.ts');
  return openVfioDevice({
    pf: kind.pf,
    container: options.container ?? 'shared',
    ...(options.profile === undefined ? {} : { profile: options.profile }),
    ...(options.totalVfs === undefined ? {} : { mostVfs: options.totalVfs }),
    log,
  });
}
