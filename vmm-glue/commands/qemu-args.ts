// `vfio-user-sriov qemu-args`: the arguments that add a backend's devices to a QEMU that somebody else starts.
import { dirname, join, resolve } from 'node:path';
import { Command, Option } from 'commander';
import { parseBytes } from '../../protocol/launch/option-values.ts';
import { parseBars, parseReadyLine, type ReadyBackend } from '../../protocol/launch/ready-line.ts';
import { UserError } from '../../protocol/user-error.ts';
import {
  MACHINE_KINDS,
  type MachineKind,
  parseSize,
  qmpArguments,
} from '../qemu/qemu-arguments.ts';
import { deviceArguments, type VfMemory } from '../qemu/topology.ts';
import { chooseVfMemory } from '../qemu/vf-memory.ts';
import { libvirtFragment } from './libvirt-fragment.ts';
import { type TopologyOptions, topologyOptions } from './topology-options.ts';
import { wholeNumber } from './whole-number.ts';

/** Above what libvirt gives to a domain of ordinary size, and below what q35 has itself. */
const FIRST_OF_LIBVIRT = 0x10;

interface QemuArgsOptions extends TopologyOptions {
  readonly ready?: string;
  readonly socketPath?: string;
  readonly vfSockets?: string;
  readonly totalVfs: number;
  readonly vfBarSize: string;
  readonly vfBars?: string;
  readonly index: number;
  readonly qmp?: string;
  readonly memory?: string;
  readonly machine: MachineKind;
  readonly json?: true;
  readonly libvirt?: true;
}

export function qemuArgsCommand(): Command {
  const command = new Command('qemu-args')
    .description(
      'Prints the arguments that give a QEMU the PF and the VF slots of a backend, one per line, as a shell reads them.',
    )
    .option(
      '--ready <line>',
      'the line that the backend printed when it was ready: says all of the next five',
    )
    .option('--socket-path <path>', "the PF's socket, as given to serve")
    .option('--vf-sockets <folder>', "the folder of the VF slots' sockets, as given to serve")
    .option(
      '--total-vfs <number>',
      'most VFs that the guest can enable, as given to serve',
      wholeNumber(1),
      7,
    )
    .option('--vf-bar-size <bytes>', "size of each VF's BAR 0, as given to serve", '16K')
    .option('--vf-bars <list>', 'the VF BARs as INDEX:BYTES:KIND,… with KIND 32, 32p, 64 or 64p')
    .option('--index <number>', 'counts the backends of this QEMU, from 0', wholeNumber(0), 0)
    .option('--qmp <path>', "QMP socket for the glue (default: qmp.sock beside the PF's socket)")
    .option('--memory <size>', 'print arguments for shared guest RAM of this size, too, such as 2G')
    .addOption(
      new Option('--machine <kind>', "QEMU's machine: carriers' ports have another place in each")
        .choices([...MACHINE_KINDS])
        .default('q35'),
    )
    .addOption(new Option('--json', 'print a JSON array instead').conflicts('libvirt'))
    .option(
      '--libvirt',
      "print the <qemu:commandline> of a domain's XML instead; its own <memory> must be shared, and --memory only names its size",
    )
    .addHelpText(
      'after',
      '\nExample:\n  eval "qemu-system-x86_64 -machine q35 $(vfio-user-sriov qemu-args --memory=1G \\\n' +
        '    --socket-path=/tmp/sriov/pf.sock --vf-sockets=/tmp/sriov/vfs)"\n',
    );
  for (const option of topologyOptions()) {
    command.addOption(option);
  }
  return command.action((options: QemuArgsOptions) => {
    process.stdout.write(printedAs(options, qemuArguments(options)));
  });
}

function printedAs({ json, libvirt }: QemuArgsOptions, args: readonly string[]): string {
  if (libvirt === true) {
    return libvirtFragment(args);
  }
  // A shell reads the lines as one, also where they are pasted, or put into `eval` by "$(…)".
  return json === true
    ? `${JSON.stringify(args, null, 2)}\n`
    : `${args.map(shellQuoted).join(' \\\n')}\n`;
}

/** The arguments. Throws UserError. */
export function qemuArguments(options: QemuArgsOptions): string[] {
  const backend = backendOf(options);
  const ramBytes = options.memory === undefined ? undefined : parseSize(options.memory);
  if (options.memory !== undefined && ramBytes === undefined) {
    throw new UserError(`--memory=${options.memory}: no size`, 'write one such as 512M or 2G', 2);
  }
  // Without a suffix QEMU's -m means MiB, and its memory backends mean bytes.
  const size = ramBytes === undefined ? '' : `${Math.floor(ramBytes / 2 ** 20)}M`;
  const memory =
    ramBytes === undefined || options.libvirt === true
      ? []
      : [
          '-m',
          size,
          '-object',
          `memory-backend-memfd,id=sriov-ram,size=${size},share=on`,
          '-machine',
          'memory-backend=sriov-ram',
        ];
  const qmp = resolve(options.qmp ?? join(dirname(backend.socketPath), 'qmp.sock'));
  return [
    ...memory,
    ...qmpArguments(qmp),
    ...deviceArguments({
      ...backend,
      index: options.index,
      machine: options.machine,
      topology: options.topology,
      vfMemory: vfMemoryOf(options, backend),
      mappedVfs: options.mappedVfs,
      ...placeOf(options),
      ...(ramBytes === undefined ? {} : { ramBytes }),
    }),
  ];
}

/** Nothing but its machine is known of the QEMU that will take the arguments: that it can is taken for granted. */
function vfMemoryOf(
  { vfMemory: asked, index, topology, mappedVfs, machine, libvirt }: QemuArgsOptions,
  { totalVfs }: ReadyBackend,
): VfMemory {
  if (asked === undefined && libvirt === true) {
    // A domain may have expander buses of its own, whose numbers libvirt gives out.
    return 'trapped';
  }
  const { vfMemory, obstacle } = chooseVfMemory({
    ...{ asked, index, topology, totalVfs, mappedVfs },
    knowsExpanderBus: true,
    machine: { machine, hasExpanderBus: false },
  });
  if (obstacle !== undefined) {
    process.stderr.write(`vfio-user-sriov: the VFs of this backend stay trapped: ${obstacle}\n`);
  }
  return vfMemory;
}

/** libvirt hands device numbers out from the lowest on, and knows nothing of what is passed through. */
function placeOf({ busAddress, libvirt, topology, index }: QemuArgsOptions): {
  busAddress?: string;
} {
  if (busAddress !== undefined) {
    return { busAddress };
  }
  return libvirt === true && topology === 'root-port'
    ? { busAddress: (FIRST_OF_LIBVIRT + index).toString(16) }
    : {};
}

function backendOf(options: QemuArgsOptions): ReadyBackend {
  if (options.ready !== undefined) {
    const backend = parseReadyLine(options.ready);
    if (backend !== undefined) {
      return absolute(backend);
    }
    throw new UserError(
      `--ready="${options.ready}": this is not what a backend prints`,
      'give the whole line that begins with "ready"',
      2,
    );
  }
  if (options.socketPath === undefined || options.vfSockets === undefined) {
    throw new UserError(
      'the sockets of the backend are not known',
      "give --socket-path and --vf-sockets as given to serve, or --ready with serve's ready line",
      2,
    );
  }
  return absolute({
    socketPath: options.socketPath,
    vfSocketsFolder: options.vfSockets,
    totalVfs: options.totalVfs,
    vfBars: parseBars(options.vfBars ?? `0:${barBytes(options.vfBarSize)}:64p`),
  });
}

function barBytes(text: string): number {
  const bytes = parseBytes(text);
  if (bytes !== undefined) {
    return bytes;
  }
  throw new UserError(`--vf-bar-size=${text}: no size`, 'write one such as 16K or 64M', 2);
}

/** QEMU may run in another folder. */
function absolute(backend: ReadyBackend): ReadyBackend {
  return {
    ...backend,
    socketPath: resolve(backend.socketPath),
    vfSocketsFolder: resolve(backend.vfSocketsFolder),
  };
}

/** As a POSIX shell reads it back. */
export function shellQuoted(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'\\''`)}'`;
}
