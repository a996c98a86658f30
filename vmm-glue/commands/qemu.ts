// `vfio-user-sriov qemu`: a backend, a stock QEMU and the glue between them in one go.
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { type LogOptions, logOptions, makeLog } from '../../protocol/logging/stderr-log.ts';
import { launch } from '../qemu/launch.ts';
import { type TopologyOptions, topologyOptions } from './topology-options.ts';

/** Options that are `serve`'s: passed on as they are, and checked there. */
const SERVE_OPTIONS: readonly (readonly [flags: string, description: string])[] = [
  ['--loopback', 'serve a device in RAM: no hardware, no privileges'],
  ['--pf <address>', 'serve a physical function of this host, such as 0000:01:00.0'],
  [
    '--total-vfs <n>',
    'most VFs that the guest can enable (default: 7, with --pf what the card has)',
  ],
  ['--vf-bar-size <bytes>', 'with --loopback: size of BAR 0 of a VF, such as 64M (default: 16K)'],
  ['--enable-delay <ms>', 'with --loopback: how long making VFs takes'],
  ['--socket-path <path>', "the PF's socket (default: in a private folder)"],
  ['--vf-sockets <folder>', 'where the sockets of the VF slots go (default: a private folder)'],
  [
    '--container <mode>',
    'with --pf: one IOMMU container for PF and VFs, or one each: shared, per-function',
  ],
  ['--profile <file>', 'with --pf: shape of the VFs, written by `probe`, instead of enabling one'],
  ['--spin <microseconds>', 'look for the next message this long before sleeping'],
  ['--plug-timeout <ms>', 'how long attaching VFs may take'],
  ['--unplug-timeout <ms>', 'how long letting go of them may take'],
];

interface QemuOptions extends TopologyOptions, LogOptions {
  readonly socketPath?: string;
  readonly vfSockets?: string;
}

export function qemuCommand(): Command {
  const command = new Command('qemu')
    .summary('runs a backend and a QEMU as one')
    .description(
      'Starts a backend, and a QEMU that has its PF and a slot for each VF; ends both when either ends.',
    )
    .usage('[options] -- qemu-system-x86_64 ARGUMENTS…')
    .addHelpText(
      'after',
      '\nExample:\n  vfio-user-sriov qemu --loopback --total-vfs=4 -- qemu-system-x86_64 -m 1G \\\n' +
        '    -object memory-backend-memfd,id=ram,size=1G,share=on -machine q35,memory-backend=ram disk.img\n',
    )
    .argument(
      '<qemu...>',
      "the QEMU program and its arguments, after --; the guest's RAM must be shared",
    );
  const own = [...topologyOptions(), ...logOptions()];
  for (const [flags, description] of SERVE_OPTIONS) {
    command.option(flags, description);
  }
  for (const option of own) {
    command.addOption(option);
  }
  return command.action(async (qemu: string[], options: QemuOptions) => {
    process.exitCode = await launch({
      backendCommand: [process.execPath, cliPath(), 'serve'],
      backendArguments: serveArguments(options),
      qemu,
      topology: options.topology,
      log: await makeLog(options),
      ...(options.busAddress === undefined ? {} : { busAddress: options.busAddress }),
      ...(options.socketPath === undefined ? {} : { socketPath: options.socketPath }),
      ...(options.vfSockets === undefined ? {} : { vfSocketsFolder: options.vfSockets }),
    });
  });
}

/** What the user gave of serve's options, but for the sockets, which the launcher places; and the log's. */
function serveArguments(options: QemuOptions): string[] {
  const given = options as unknown as Record<string, unknown>;
  const names = [
    ...SERVE_OPTIONS.map(([flags]) => flags.split(' ')[0]!),
    '--log-level',
    '--log-format',
  ];
  return names
    .filter((name) => name !== '--socket-path' && name !== '--vf-sockets')
    .flatMap((name) => {
      const value = given[camelCase(name)];
      if (value === undefined) {
        return [];
      }
      return value === true ? [name] : [`${name}=${value}`];
    });
}

function camelCase(flag: string): string {
  return flag.slice(2).replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** The program that this command is part of. */
function cliPath(): string {
  return fileURLToPath(new URL(`../../cli${import.meta.url.slice(-3)}`, import.meta.url));
}
