// The options of `serve`, as data: what they are called, what they mean together, and what is said where they make no
// sense. `serve.ts` carries them out; `qemu` passes them on.

import { type Command, Option } from 'commander';
import {
  PLUG_TIMEOUT_MILLISECONDS,
  UNPLUG_TIMEOUT_MILLISECONDS,
} from '../../protocol/hotplug/timing.ts';
import { LONGEST_MILLISECONDS } from '../../protocol/launch/option-values.ts';
import { type LogOptions, logOptions } from '../../protocol/logging/stderr-log.ts';
import { UserError } from '../../protocol/user-error.ts';
import type { KindOption, KindOptions } from '../devices/kind.ts';
import { wholeNumber } from '../devices/option-values.ts';
import { DEVICE_FILE_OPTIONS, isDeviceFile, KINDS } from '../devices/registry.ts';
import { MOST_VFS } from '../pci/spec/sriov.ts';
import { FAULT_OPTIONS, type FaultOptions } from './fault-option.ts';
import { METRICS_OPTIONS, type MetricsOptions } from './metrics-option.ts';
import { onlyOne } from './only-one.ts';
import { SOCKET_OPTIONS, type SocketOptions } from './socket-options.ts';
import { TRACE_OPTIONS, type TraceOptions } from './trace-options.ts';

export interface ServeOptions
  extends LogOptions,
    KindOptions,
    SocketOptions,
    TraceOptions,
    MetricsOptions,
    FaultOptions {
  readonly device?: string;
  readonly loopback?: true;
  readonly pf?: string;
  readonly spin?: number;
  readonly printCapabilities?: true;
  readonly plugTimeout: number;
  readonly unplugTimeout: number;
}

/** An option of `serve`; `default` is commander's, and `defaultText` what help shows for it. */
export interface ServeOption extends KindOption {
  readonly default?: number;
  readonly defaultText?: string;
  /** May be given several times: its value is a list. */
  readonly isRepeatable?: true;
}

/** On more than one CPU, unless told otherwise. */
export const SPIN_MICROSECONDS = 50;
/** The kind that `--pf` stands for: its name is not for `--device`. */
const PHYSICAL = 'vfio';

const NAMES = Object.keys(KINDS).filter((name) => name !== PHYSICAL);

/** Options that mean the same for every kind of device. */
const DEVICE_OPTIONS: readonly ServeOption[] = [
  {
    flags: '--device <kind>',
    description: `a device in RAM: ${NAMES.join(', ')}, or a file with a card of your own`,
  },
  { flags: '--loopback', description: 'short for --device=loopback: no hardware, no privileges' },
  {
    flags: '--total-vfs <n>',
    description: `TotalVFs, at most ${MOST_VFS} (default: 7; what the card has with --pf, --profile or a file)`,
    parse: wholeNumber(1, MOST_VFS),
  },
];

const TIMING_OPTIONS: readonly ServeOption[] = [
  {
    flags: '--spin <microseconds>',
    description: `look for the next message this long before sleeping (default: ${SPIN_MICROSECONDS}, 0 with one CPU)`,
    parse: wholeNumber(0, 1_000_000),
  },
  {
    flags: '--plug-timeout <ms>',
    description: 'how long a VMM may take to attach VFs',
    parse: wholeNumber(1, LONGEST_MILLISECONDS),
    default: PLUG_TIMEOUT_MILLISECONDS,
  },
  {
    flags: '--unplug-timeout <ms>',
    description: 'how long it may take to let go',
    parse: wholeNumber(1, LONGEST_MILLISECONDS),
    default: UNPLUG_TIMEOUT_MILLISECONDS,
  },
];

/** What programs ask of a backend that they do not know. */
const CONVENTION_OPTIONS: readonly ServeOption[] = [
  {
    flags: '--print-capabilities',
    description: 'print what this backend can do, as JSON, and serve nothing',
  },
];

/** All but the log's; those of one kind of device say which. */
export function serveOptions(): readonly ServeOption[] {
  return [
    ...SOCKET_OPTIONS,
    ...DEVICE_OPTIONS,
    ...kindOptions(),
    ...TIMING_OPTIONS,
    ...TRACE_OPTIONS,
    ...METRICS_OPTIONS,
    ...CONVENTION_OPTIONS,
    ...FAULT_OPTIONS,
  ];
}

/** Each once, though several kinds may have it. */
function kindOptions(): ServeOption[] {
  const byFlags = new Map<string, ServeOption>();
  for (const { options } of Object.values(KINDS)) {
    for (const option of options) {
      const kinds = kindsWith(option.flags);
      const ofFile = DEVICE_FILE_OPTIONS.some(({ flags }) => flags === option.flags)
        ? ['--device=FILE']
        : [];
      const description =
        kinds.includes(PHYSICAL) && option.flags.startsWith('--pf ')
          ? option.description
          : `with ${[...kinds.map(selectorOf), ...ofFile].join(', ')}: ${option.description}`;
      byFlags.set(option.flags, { ...option, description });
    }
  }
  return [...byFlags.values()];
}

function kindsWith(flags: string): string[] {
  return Object.keys(KINDS).filter((name) =>
    KINDS[name]!.options.some((option) => option.flags === flags),
  );
}

/** What a person types to have a device of this kind. */
function selectorOf(kind: string): string {
  return kind === PHYSICAL ? '--pf' : kind === 'loopback' ? '--loopback' : `--device=${kind}`;
}

/** Adds them all to a command. */
export function addServeOptions(command: Command): void {
  for (const each of serveOptions()) {
    const { flags, description, parse, choices, default: value, defaultText, isRepeatable } = each;
    const option = new Option(flags, description);
    if (isRepeatable === true) {
      option.argParser((text, before: readonly string[] = []) => [...before, text]);
    }
    if (parse !== undefined) {
      option.argParser(parse);
    }
    if (choices !== undefined) {
      option.choices(choices);
    }
    if (value !== undefined) {
      option.default(value, defaultText);
    }
    command.addOption(option);
  }
  for (const option of logOptions()) {
    command.addOption(option);
  }
}

/** The name of the device's kind. @throws UserError unless it is said once, and nothing about another kind. */
export function deviceKindOf(options: ServeOptions): string {
  const kind = onlyOne(
    {
      '--loopback': options.loopback === undefined ? undefined : 'loopback',
      '--device': options.device,
      '--pf': options.pf === undefined ? undefined : PHYSICAL,
    },
    'give --loopback for a device in RAM, or --pf=0000:01:00.0 for a physical function of this host',
  );
  if (
    options.device !== undefined &&
    !NAMES.includes(options.device) &&
    !isDeviceFile(options.device)
  ) {
    throw new UserError(
      `--device=${options.device}: there is no such kind of device`,
      `choose one of ${NAMES.join(', ')}, or name a file such as ./my-card.ts`,
      2,
    );
  }
  refuseForeignOptions(kind, options);
  return kind;
}

function refuseForeignOptions(kind: string, given: ServeOptions): void {
  const own = isDeviceFile(kind) ? DEVICE_FILE_OPTIONS : KINDS[kind]!.options;
  for (const { flags } of Object.values(KINDS).flatMap(({ options }) => options)) {
    const isOwn = own.some((option) => option.flags === flags);
    if (isOwn || given[nameOf(flags)] === undefined) {
      continue;
    }
    const kinds = kindsWith(flags);
    const [flag] = flags.split(' ');
    const needed = kinds.map(selectorOf).join(' or ');
    throw new UserError(
      `${flag} goes with ${needed}, but ${selectorOf(kind)} was given`,
      'leave it out',
      2,
    );
  }
}

/** `--vf-bar-size <bytes>` → `vfBarSize`, as commander does. */
function nameOf(flags: string): string {
  return new Option(flags).attributeName();
}
