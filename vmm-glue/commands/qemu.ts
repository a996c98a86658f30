// `vfio-user-sriov qemu`: a backend, a stock QEMU and the glue between them in one go.
import { fileURLToPath } from 'node:url';
import { Command, Option } from 'commander';
import { type LogOptions, logOptions, makeLog } from '../../protocol/logging/stderr-log.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { UserError } from '../../protocol/user-error.ts';
import { launch } from '../qemu/launch.ts';
import { type TopologyOptions, topologyOptions } from './topology-options.ts';

/** An option of `serve`: passed on as it is, and checked there. */
export interface PassedOption {
  readonly flags: string;
  readonly description: string;
  readonly choices?: readonly string[];
  readonly default?: number;
  readonly defaultText?: string;
  /** May be given several times. */
  readonly isRepeatable?: true;
}

/** What the launcher places itself unless told otherwise. */
const PLACED: Readonly<Record<string, string>> = {
  '--socket-path': "the PF's socket (default: in a private folder)",
  '--vf-sockets': 'where the sockets of the VF slots go (default: a private folder)',
};
/** Of `serve`'s options those that make no sense here: the launcher connects by path, and there is a VM to run. */
const NOT_PASSED = ['--fd', '--print-capabilities'];

interface QemuOptions extends TopologyOptions, LogOptions {
  readonly socketPath?: string;
  readonly vfSockets?: string;
  readonly socketGroup?: string;
  readonly socketMode?: string;
}

/** `serveOptions`: all that `serve` takes beside the log's. */
export function qemuCommand(serveOptions: readonly PassedOption[]): Command {
  const passed = serveOptions.filter(({ flags }) => !NOT_PASSED.includes(nameIn(flags)));
  const command = new Command('qemu')
    .description(
      'Starts a backend, and a QEMU that has its PF and a slot for each VF; ends both when either ends.',
    )
    .usage('[options] -- qemu-system-x86_64 ARGUMENTS…')
    .passThroughOptions()
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
  for (const each of passed) {
    const option = new Option(each.flags, PLACED[nameIn(each.flags)] ?? describedFully(each));
    if (each.isRepeatable === true) {
      option.argParser((text, before: readonly string[] = []) => [...before, text]);
    }
    command.addOption(option);
  }
  for (const option of own) {
    command.addOption(option);
  }
  return command.action(async (qemu: string[], options: QemuOptions) => {
    refuseUselessAccess(options);
    process.exitCode = await launch({
      backendCommand: [process.execPath, cliPath(), 'serve'],
      backendArguments: serveArguments(passed, options),
      qemu,
      topology: options.topology,
      log: await makeLog(options),
      clock: processClock,
      ...(options.vfMemory === undefined ? {} : { vfMemory: options.vfMemory }),
      mappedVfs: options.mappedVfs,
      ...(options.busAddress === undefined ? {} : { busAddress: options.busAddress }),
      ...(options.socketPath === undefined ? {} : { socketPath: options.socketPath }),
      ...(options.vfSockets === undefined ? {} : { vfSocketsFolder: options.vfSockets }),
    });
  });
}

/** With what `serve` itself would say of its values, since the launcher neither checks nor fills them in. */
function describedFully({ description, choices, ...option }: PassedOption): string {
  const value = option.defaultText ?? option.default;
  const remarks = [
    ...(choices === undefined ? [] : [`choices: ${choices.join(', ')}`]),
    ...(value === undefined ? [] : [`default: ${value}`]),
  ];
  return remarks.length === 0 ? description : `${description} (${remarks.join('; ')})`;
}

/** Nobody else gets into the private folder. @throws UserError */
function refuseUselessAccess({ socketPath, socketGroup, socketMode }: QemuOptions): void {
  if (socketPath === undefined && (socketGroup ?? socketMode) !== undefined) {
    throw new UserError(
      `${socketGroup === undefined ? '--socket-mode' : '--socket-group'}: the socket is in a folder of this user alone`,
      'give --socket-path, in a folder that the others can get into',
      2,
    );
  }
}

/** What the user gave of serve's options, but for the sockets, which the launcher places; and the log's. */
function serveArguments(passed: readonly PassedOption[], options: QemuOptions): string[] {
  const given = options as unknown as Record<string, unknown>;
  const names = [
    ...passed.map(({ flags }) => nameIn(flags)),
    '--log-level',
    '--log-format',
    '--log-file',
  ];
  return names
    .filter((name) => PLACED[name] === undefined)
    .flatMap((name) => {
      const value = given[camelCase(name)];
      if (value === undefined) {
        return [];
      }
      const values: readonly unknown[] = Array.isArray(value) ? value : [value];
      return values.map((each) => (each === true ? name : `${name}=${each}`));
    });
}

/** `--vf-bar-size <bytes>` → `--vf-bar-size` */
function nameIn(flags: string): string {
  return flags.split(' ')[0]!;
}

function camelCase(flag: string): string {
  return flag.slice(2).replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** The program that this command is part of. */
function cliPath(): string {
  return fileURLToPath(new URL(`../../cli${import.meta.url.slice(-3)}`, import.meta.url));
}
