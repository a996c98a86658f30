// The lab as a program: `lab` sets it up and prints its paths, `lab module` builds kernel modules, `lab boot` boots a guest
// and runs what is said on standard input in it. README.md beside this file has the arguments. Progress goes to standard error.
// Exit status 1 with a line when something is missing, 2 for wrong usage.
import { asksForHelp } from '../program-options.ts';
import { bootAndServe, parseBootArguments } from './boot.ts';
import { pathOfCaller } from './caller-path.ts';
import { buildModules } from './kernel-build.ts';
import { lab } from './lab.ts';
import { LabError } from './lab-error.ts';
import { parseShellArguments, runShell } from './shell.ts';

const USAGE = `usage: lab                 set the lab up and print its paths as JSON
       lab module FOLDER   build the kernel modules of FOLDER for the guest's kernel; they come to be in it
       lab guest [OPTION…] [-- MORE…]
                           boot a guest to a shell on this terminal; Ctrl-A x ends it
  --device=KIND            the PF: loopback (default), nvme, endpoint-test, or a file with a card of your own
  --vfs=N                  enable N VFs when the driver has bound the PF
  --module=NAME            load a kernel module, or one of your own: my_card.ko; may be repeated
  --share=FOLDER           have this folder in the guest at /share, read-only
  --memory=MEGABYTES       the guest's memory (default: 512)
  MORE…                    more options for 'vfio-user-sriov qemu', such as --fault=flr:hang
       lab boot [OPTION…] [-- STARTER…]
                           boot a guest; what each line of standard input says is run in it
  --module=NAME            load a kernel module at start ('NAME PARAMETER=VALUE'), the kernel's own or a file that ends with
                           .ko; may be repeated
  --pci-function           have the program pci-function in the guest, which drives a PCI function
  --append=PARAMETER       more for the kernel's command line; may be repeated
  --machine=PROPERTY       more for QEMU's -machine; may be repeated
  --qemu=ARGUMENT          one more argument for QEMU; may be repeated
  --json                   answer each line with a line of JSON
  STARTER…                 what starts QEMU, and takes its command line last (default: nothing)
`;

const [command, ...rest] = process.argv.slice(2);
try {
  if (asksForHelp(process.argv.slice(2))) {
    process.stdout.write(USAGE);
  } else if (command === undefined) {
    process.stdout.write(`${JSON.stringify(await lab())}\n`);
  } else if (command === 'boot') {
    process.exitCode = await bootAndServe(parseBootArguments(rest));
  } else if (command === 'module' && rest.length === 1) {
    const folder = pathOfCaller(rest[0]!);
    process.stdout.write(`${(await buildModules(folder, folder)).join('\n')}\n`);
  } else if (command === 'guest') {
    process.exitCode = await runShell(parseShellArguments(rest));
  } else {
    const cause =
      command === 'module'
        ? 'module takes one FOLDER'
        : `there is no "${[command, ...rest].join(' ')}"`;
    process.stderr.write(`lab: ${cause}\n${USAGE}`);
    process.exitCode = 2;
  }
} catch (error) {
  if (error instanceof LabError) {
    process.stderr.write(`lab: ${error.message}\n`);
    process.exitCode = 1;
  } else if ((error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS')) {
    process.stderr.write(`lab: ${(error as Error).message}\n${USAGE}`);
    process.exitCode = 2;
  } else {
    throw error;
  }
}
