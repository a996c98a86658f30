// `vfio-user-sriov qemu`: a backend, a stock QEMU and the glue between them in one go.
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { launch } from '../qemu/launch.ts';
import { createLog, type LogOptions, logOptions } from './log.ts';
import { type TopologyOptions, topologyOptions } from './topology-options.ts';

/** Options that are `serve`'s: passed on as they are, and checked there. */
const SERVE_OPTIONS: readonly (readonly [flags: string, description: string])[] = [
  ['--loopback', 'serve a device in RAM'],
  ['--pf <address>', 'serve the PF at this PCI address of the host, such as 0000:01:00.0'],
  ['--total-vfs <number>', 'most VFs that the guest can enable'],
  ['--vf-bar-size <bytes>', "size of each VF's BAR 0 (--loopback)"],
  ['--socket-path <path>', "the PF's socket (default: in a private folder)"],
  ['--vf-sockets <folder>', "where the VF slots' sockets go (default: a private folder)"],
  ['--container <kind>', 'which VFIO interface of the host to use'],
  ['--profile <name>', 'what is known of this kind of device'],
];

interface QemuOptions extends TopologyOptions, LogOptions {
  readonly socketPath?: string;
  readonly vfSockets?: string;
}

export function qemuCommand(): Command {
  const command = new Command('qemu')
    .description(
      'start a backend and a QEMU that has its PF and VF slots; ends both when either ends',
    )
    .usage('[options] -- qemu-system-x86_64 ARGUMENTS…')
    .argument(
      '<qemu...>',
      "the QEMU program and its arguments, after --; the guest's RAM must be shared",
    );
  const own = [...topologyOptions(), ...logOptions()];
  for (const [flags, description] of SERVE_OPTIONS) command.option(flags, description);
  for (const option of own) command.addOption(option);
  return command.action(async (qemu: string[], options: QemuOptions) => {
    process.exitCode = await launch({
      backendCommand: [process.execPath, cliPath(), 'serve'],
      backendArguments: serveArguments(options),
      qemu,
      topology: options.topology,
      log: createLog(options),
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
      if (value === undefined) return [];
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
