// `serve`: the backend. The composition root of the main thread: options, log, device, device thread, signals.

import { existsSync, fstatSync, mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { UserError } from '../../protocol/user-error.ts';
import type { PhysicalDevice } from '../device/physical-device.ts';
import { LoopbackDevice } from '../loopback/device.ts';
import { Layout } from '../loopback/registers.ts';
import type { BarShape } from '../pci/bars.ts';
import type { Log } from '../server/connection.ts';
import { DeviceThread } from '../server/device-thread.ts';
import { explained } from './host-failure.ts';
import { type LogOptions, logOptions, logTo, makeLogger, wholeNumber } from './logger.ts';
import { pfOption } from './pf-option.ts';

interface ServeOptions extends LogOptions {
  socketPath?: string;
  fd?: number;
  loopback?: true;
  pf?: string;
  totalVfs?: number;
  vfBarSize?: number;
  enableDelay?: number;
  vfSockets?: string;
  container?: 'shared' | 'per-function';
  profile?: string;
  spin?: number;
  plugTimeout: number;
  unplugTimeout: number;
}

/** Options that mean something for one kind of device only. */
const OF_LOOPBACK = ['vfBarSize', 'enableDelay'] as const;
const OF_PF = ['container', 'profile'] as const;

const MOST_VFS = 255;
const LOOPBACK_VFS = 7;
const SMALLEST_VF_BAR = 2 * Layout.memory;
const SPIN_MICROSECONDS = 50;

export function serveCommand(): Command {
  const command = new Command('serve')
    .summary('serves a PF to one VM')
    .description(
      'Serves one SR-IOV physical function to one VM over vfio-user, until SIGTERM. When clients can connect it prints ' +
        'one line, `ready …`, on standard output; logs go to standard error.',
    )
    .option('--socket-path <path>', 'unix socket for the PF')
    .option('--fd <number>', 'serve a socket that is connected already, instead', wholeNumber(0))
    .option('--loopback', 'a device in RAM: no hardware, no privileges')
    .addOption(pfOption('a physical function on this host, such as 0000:01:00.0'))
    .option(
      '--total-vfs <n>',
      `TotalVFs, at most ${MOST_VFS} (default: ${LOOPBACK_VFS}, with --pf what the card has)`,
      wholeNumber(1, MOST_VFS),
    )
    .option(
      '--vf-bar-size <bytes>',
      'with --loopback: size of BAR 0 of a VF, such as 64M (default: 16K)',
      barSize,
    )
    .option(
      '--enable-delay <ms>',
      'with --loopback: how long making VFs takes (default: 0)',
      wholeNumber(0, 60_000),
    )
    .option(
      '--vf-sockets <folder>',
      'a socket per VF, vf0.sock …, for VMMs that attach VFs as slots',
    )
    .addOption(
      new Option(
        '--container <mode>',
        'with --pf: one IOMMU container for PF and VFs (shared, the default), or one each',
      ).choices(['shared', 'per-function']),
    )
    .option(
      '--profile <file>',
      'with --pf: shape of the VFs, written by `probe`, instead of enabling one',
    )
    .option(
      '--spin <microseconds>',
      `look for the next message this long before sleeping (default: ${SPIN_MICROSECONDS}, 0 with one CPU)`,
      wholeNumber(0, 1_000_000),
    )
    .option('--plug-timeout <ms>', 'how long a VMM may take to attach VFs', wholeNumber(1), 10_000)
    .option('--unplug-timeout <ms>', 'how long it may take to let go', wholeNumber(1), 5_000)
    .addHelpText(
      'after',
      '\nExample:\n  vfio-user-sriov serve --loopback --socket-path=/tmp/pf.sock --vf-sockets=/tmp/vfs\n',
    )
    .action((options: ServeOptions) => explained(() => serve(options)));
  for (const option of logOptions()) command.addOption(option);
  return command;
}

async function serve(options: ServeOptions): Promise<void> {
  const socket = socketOf(options);
  if (options.vfSockets !== undefined) makeFolder(options.vfSockets);
  const log = logTo(await makeLogger(options));
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

function socketOf({ socketPath, fd }: ServeOptions): { path: string } | { fd: number } {
  if ((socketPath === undefined) === (fd === undefined)) {
    throw new UserError(
      'serve needs exactly one of --socket-path and --fd',
      'give --socket-path=PATH for a socket to listen at',
      2,
    );
  }
  if (socketPath !== undefined) return { path: socketPath };
  if (isSocket(fd!)) return { fd: fd! };
  throw new UserError(
    `--fd=${fd}: it is not an open socket`,
    'hand over one end of a connected pair of unix sockets under this number',
    2,
  );
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}

async function openDevice(options: ServeOptions, log: Log): Promise<PhysicalDevice> {
  if ((options.loopback === undefined) === (options.pf === undefined)) {
    throw new UserError(
      'serve needs exactly one of --loopback and --pf',
      'give --loopback for a device in RAM, or --pf=0000:01:00.0 for a physical function of this host',
      2,
    );
  }
  if (options.pf === undefined) {
    refuseAny(OF_PF, options, 'a physical function, but --loopback');
    return new LoopbackDevice({
      totalVfs: options.totalVfs ?? LOOPBACK_VFS,
      vfBarSize: options.vfBarSize ?? SMALLEST_VF_BAR,
      enableMilliseconds: options.enableDelay ?? 0,
    });
  }
  refuseAny(OF_LOOPBACK, options, 'a loopback device, but --pf');
  const { openVfioDevice } = await import('../host/open-vfio-device.ts');
  return openVfioDevice({
    pf: options.pf,
    container: options.container ?? 'shared',
    ...(options.profile === undefined ? {} : { profile: options.profile }),
    ...(options.totalVfs === undefined ? {} : { mostVfs: options.totalVfs }),
    log,
  });
}

function refuseAny(names: readonly (keyof ServeOptions)[], given: ServeOptions, why: string): void {
  const name = names.find((each) => given[each] !== undefined);
  if (name === undefined) return;
  const flag = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  throw new UserError(`--${flag} is for ${why} was given`, 'leave it out', 2);
}

/** `ready`, then key=value pairs: what a launcher has to know to start its VMM. */
function readyLine(options: ServeOptions, { description }: PhysicalDevice): string {
  const pairs = [
    options.socketPath === undefined ? `fd=${options.fd}` : `socket=${options.socketPath}`,
    ...(options.vfSockets === undefined ? [] : [`vf-sockets=${options.vfSockets}`]),
    `total-vfs=${description.totalVfs}`,
    `pf-bars=${memoryBars(description.pf.bars)}`,
    `vf-bars=${memoryBars(description.vfBars)}`,
  ];
  return `ready ${pairs.join(' ')}`;
}

function memoryBars(bars: readonly BarShape[]): string {
  return bars
    .filter(({ kind }) => kind !== 'io')
    .map(barText)
    .join(',');
}

/** `0:16384:64p`: index, size in bytes, width, and p where prefetchable. */
function barText({ index, size, kind, prefetchable }: BarShape): string {
  return `${index}:${size}:${kind === 'memory64' ? 64 : 32}${prefetchable ? 'p' : ''}`;
}

function makeFolder(path: string): void {
  if (existsSync(path)) return;
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new UserError(
      `--vf-sockets=${path}: ${(error as Error).message}`,
      'name a folder that exists or can be made',
    );
  }
}

/** Bytes, with an optional K, M or G; a power of two. */
function barSize(text: string): number {
  const match = /^(\d+)([KMG]?)$/.exec(text);
  const unit = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }[match?.[2] ?? ''] ?? 1;
  const size = Number(match?.[1]) * unit;
  if (match === null || size < SMALLEST_VF_BAR || !Number.isInteger(Math.log2(size))) {
    throw new InvalidArgumentError(`It must be a power of two, 16K or more, like 16K or 64M.`);
  }
  return size;
}
