#!/usr/bin/env -S UV_THREADPOOL_SIZE=64 node
// Each VF of a physical device is opened and closed by a call that takes 0.1 s: the thread pool, which Node sizes before
// it runs a line of a program, must hold them all at once.
//
// The executable: finds the subcommand, loads only that one, and prints a person's mistakes as one line.

import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { situationOf } from './protocol/explained-error.ts';
import { lastWord } from './protocol/last-word.ts';
import './protocol/unix/no-debugger.ts';
import { UserError } from './protocol/user-error.ts';

/** Subcommand to the module that makes it; loaded on demand, because a backend should be ready at once. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  serve: async () => (await import('./backend/commands/serve.ts')).serveCommand(),
  status: async () => (await import('./vmm-glue/commands/status.ts')).statusCommand(),
  probe: async () => (await import('./backend/commands/probe.ts')).probeCommand(),
  prepare: async () => (await import('./backend/commands/prepare.ts')).prepareCommand(),
  release: async () => (await import('./backend/commands/release.ts')).releaseCommand(),
  doctor: async () => (await import('./backend/commands/doctor.ts')).doctorCommand(),
  qemu: async () => {
    const { serveOptions } = await import('./backend/commands/serve-options.ts');
    return (await import('./vmm-glue/commands/qemu.ts')).qemuCommand(serveOptions());
  },
  'qemu-args': async () => (await import('./vmm-glue/commands/qemu-args.ts')).qemuArgsCommand(),
  replay: async () => (await import('./trace/commands/replay.ts')).replayCommand(),
  trace: async () => (await import('./trace/commands/trace.ts')).traceCommand(),
  'attach-qemu': async () =>
    (await import('./vmm-glue/commands/attach-qemu.ts')).attachQemuCommand(),
};

const PROGRAM = 'vfio-user-sriov';
const USAGE_EXIT_CODE = 2;

/** The package's own; package.json is one level up from the built executable. */
function packageVersion(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

async function program(name: string | undefined): Promise<Command> {
  const root = new Command(PROGRAM)
    .version(packageVersion())
    .description('Gives a VM an SR-IOV physical function whose VFs the guest itself can enable.')
    .enablePositionalOptions()
    .addHelpText(
      'after',
      '\nExamples:\n' +
        '  vfio-user-sriov qemu --loopback --total-vfs=4 -- qemu-system-x86_64 -M q35 …   a VM, nothing but RAM behind it\n' +
        '  vfio-user-sriov doctor --pf=0000:01:00.0                                       is this host ready?\n',
    );
  const load = name === undefined ? undefined : COMMANDS[name];
  const commands = load === undefined ? Object.values(COMMANDS) : [load];
  for (const each of commands) {
    root.addCommand(await each());
  }
  for (const command of [root, ...root.commands]) {
    const help = `${command === root ? '' : `${PROGRAM} `}${command.name()} --help`;
    command.exitOverride().configureOutput({
      outputError: (text, write) => write(`${PROGRAM}: ${oneLine(text)}; see ${help}\n`),
    });
  }
  return root;
}

/** commander's `error: cause.`, with its suggestion on a line of its own. */
function oneLine(text: string): string {
  return text
    .trim()
    .replace(/^error: /, '')
    .replace(/\.$/, '')
    .replaceAll('\n', ' ');
}

/** Node puts U+FFFD for bytes that are no UTF-8: a path with one would be another one than was meant. @throws UserError */
function refuseMangled(args: readonly string[]): void {
  const mangled = args.find((each) => each.includes('\ufffd'));
  if (mangled !== undefined) {
    throw new UserError(`${mangled}: it is not UTF-8`, 'use paths and names in UTF-8', 2);
  }
}

/** Says why in one line; the exit status says that it failed. */
function fail(error: unknown): void {
  const { line, exitCode } = lastWord(error);
  process.stderr.write(`${PROGRAM}: ${line}\n`);
  process.exitCode = exitCode;
}

// Who reads the output has gone, as `head` does, and wants no word of it; a full disk is told.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') {
    process.exitCode ??= 1;
  } else {
    fail(new UserError(`standard output: ${situationOf(error)}`, 'let it go where there is room'));
  }
});
process.stderr.on('error', () => {});
process.on('uncaughtException', (error) => {
  fail(error);
  process.exit();
});

try {
  refuseMangled(process.argv);
  await (await program(process.argv[2])).parseAsync(process.argv);
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : USAGE_EXIT_CODE;
  } else {
    fail(error);
  }
}
