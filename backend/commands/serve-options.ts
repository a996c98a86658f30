// The options of `serve`: what they are called, what they mean together, and what is said where they make no sense.
// `serve.ts` carries them out.

import { existsSync, fstatSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { PLUG_TIMEOUT_MILLISECONDS } from '../../protocol/hotplug/timing.ts';
import { type LogOptions, logOptions } from '../../protocol/logging/stderr-log.ts';
import { UserError } from '../../protocol/user-error.ts';
import { Layout } from '../devices/loopback/registers.ts';
import { pfOption } from './pf-option.ts';
import { wholeNumber } from './whole-number.ts';

export interface ServeOptions extends LogOptions {
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
/** TotalVFs of a loopback device, unless told otherwise. */
export const LOOPBACK_VFS = 7;
/** VF BAR size of a loopback device, unless told otherwise: registers, MSI-X page and as much memory. */
export const SMALLEST_VF_BAR = 2 * Layout.memory;
/** On more than one CPU, unless told otherwise. */
export const SPIN_MICROSECONDS = 50;

/** Adds them all to a command. */
export function addServeOptions(command: Command): void {
  command
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
    .option(
      '--plug-timeout <ms>',
      'how long a VMM may take to attach VFs',
      wholeNumber(1),
      PLUG_TIMEOUT_MILLISECONDS,
    )
    .option('--unplug-timeout <ms>', 'how long it may take to let go', wholeNumber(1), 5_000);
  for (const option of logOptions()) {
    command.addOption(option);
  }
}

/** Where the PF is to be served. @throws UserError unless it is said once, and can be. */
export function socketOf({ socketPath, fd }: ServeOptions): { path: string } | { fd: number } {
  if ((socketPath === undefined) === (fd === undefined)) {
    throw new UserError(
      'serve needs exactly one of --socket-path and --fd',
      'give --socket-path=PATH for a socket to listen at',
      2,
    );
  }
  if (socketPath !== undefined) {
    return { path: socketPath };
  }
  if (isSocket(fd!)) {
    return { fd: fd! };
  }
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

/** What the device is to be. @throws UserError unless it is said once, and nothing about the other kind. */
export function deviceKindOf(options: ServeOptions): { loopback: true } | { pf: string } {
  if ((options.loopback === undefined) === (options.pf === undefined)) {
    throw new UserError(
      'serve needs exactly one of --loopback and --pf',
      'give --loopback for a device in RAM, or --pf=0000:01:00.0 for a physical function of this host',
      2,
    );
  }
  if (options.pf === undefined) {
    refuseAny(OF_PF, options, 'a physical function, but --loopback');
    return { loopback: true };
  }
  refuseAny(OF_LOOPBACK, options, 'a loopback device, but --pf');
  return { pf: options.pf };
}

function refuseAny(names: readonly (keyof ServeOptions)[], given: ServeOptions, why: string): void {
  const name = names.find((each) => given[each] !== undefined);
  if (name === undefined) {
    return;
  }
  const flag = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  throw new UserError(`--${flag} is for ${why} was given`, 'leave it out', 2);
}

/** Makes the folder of the VFs' sockets where there is none yet. @throws UserError */
export function makeSocketFolder(path: string): void {
  if (existsSync(path)) {
    return;
  }
  try {
    makeFolder(path);
  } catch (error) {
    throw new UserError(
      `--vf-sockets=${path}: ${(error as Error).message}`,
      'name a folder that exists or can be made',
    );
  }
}

/** As mkdirSync with `recursive`, which in Node 20 never ends below /proc. */
function makeFolder(path: string): void {
  if (existsSync(path)) {
    return;
  }
  makeFolder(dirname(path));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    // Another backend has made it at the same moment.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
      throw error;
    }
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
