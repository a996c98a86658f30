#!/usr/bin/env -S UV_THREADPOOL_SIZE=64 node
// Each VF of a physical device is opened and closed by a call that takes 0.1 s: the thread pool, which Node sizes before
// it runs a line of a program, must hold them all at once.
//
// The executable: finds the subcommand, loads only that one, and prints a person's mistakes as one line.

import { Command, CommanderError } from 'commander';
import { COMMANDS, PROGRAM } from './commands.ts';
import { tellMistake } from './mistakes.ts';
import { situationOf } from './protocol/explained-error.ts';
import { lastWord } from './protocol/last-word.ts';
import { programVersion } from './protocol/unix/program-version.ts';
import './protocol/unix/no-debugger.ts';
import { UserError } from './protocol/user-error.ts';

const USAGE_EXIT_CODE = 2;

/** With the subcommand that is called; where it is none, with a line for each. */
async function program([first, second]: readonly string[]): Promise<Command> {
  const name = first === 'help' ? second : first;
  const root = new Command(PROGRAM)
    .version(programVersion())
    .description('Gives a VM an SR-IOV physical function whose VFs the guest itself can enable.')
    .enablePositionalOptions()
    .addHelpText(
      'after',
      '\nExamples:\n' +
        '  vfio-user-sriov serve --loopback --socket-path=/tmp/pf.sock   a device in RAM, for any VMM\n' +
        '  vfio-user-sriov doctor --pf=0000:01:00.0                      is this host ready for its card?\n' +
        '  vfio-user-sriov qemu --help                                   how to run a VM with it\n',
    );
  const called = name === undefined ? undefined : COMMANDS[name];
  if (first === 'help' && second !== undefined && called === undefined) {
    throw new UserError(`unknown command '${second}'`, `see ${PROGRAM} --help`, USAGE_EXIT_CODE);
  }
  if (called !== undefined) {
    root.addCommand((await called.load()).summary(called.summary));
  } else {
    for (const [each, { summary }] of Object.entries(COMMANDS)) {
      root.addCommand(new Command(each).summary(summary));
    }
  }
  for (const command of [root, ...root.commands]) {
    command.exitOverride().configureOutput({
      outputError: (text, write) =>
        write(`${PROGRAM}: ${tellMistake(text, command, called?.hint)}\n`),
    });
  }
  return root;
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
  const { line, place = [], exitCode } = lastWord(error);
  process.stderr.write(`${[`${PROGRAM}: ${line}`, ...place].join('\n')}\n`);
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
  await (await program(process.argv.slice(2))).parseAsync(process.argv);
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : USAGE_EXIT_CODE;
  } else {
    fail(error);
  }
}
