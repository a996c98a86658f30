// `prepare --pf=…`: gets a PF ready to be served, once per boot and as root, so that `serve` needs fewer rights.
import { Command } from 'commander';
import { SILENT } from '../../protocol/log.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { UserError } from '../../protocol/user-error.ts';
import { linuxContext } from '../devices/vfio/linux-context.ts';
import { prepare } from '../devices/vfio/readiness/preparation.ts';
import { pfOption } from './pf-option.ts';
import { accountOf, systemTools } from './preparation-tools.ts';
import { requireRoot } from './root.ts';

interface PrepareOptions {
  readonly pf: string;
  readonly user?: string;
  readonly privileged?: true;
}

export function prepareCommand(): Command {
  return new Command('prepare')
    .description('Binds a PF to vfio-pci and turns enable_sriov on (root). `release` undoes it.')
    .addOption(pfOption().makeOptionMandatory())
    .option(
      '--user <name>',
      'let this user run `probe` and `serve` for the PF; the right to lock the RAM of the VM (ulimit -l) must be granted besides',
    )
    .option(
      '--privileged',
      'with --user: give the PF alone; VFs and sriov_numvfs stay with root’s opener and writer (`privileged`)',
    )
    .addHelpText(
      'after',
      '\nExample:\n  sudo vfio-user-sriov prepare --pf=0000:01:00.0 --user="$USER"\n',
    )
    .action(prepareFor);
}

async function prepareFor({ pf, user, privileged }: PrepareOptions): Promise<void> {
  requireRoot('prepare');
  if (privileged === true && user === undefined) {
    throw new UserError('--privileged is for a user who is not root', 'give --user=NAME', 2);
  }
  const account = user === undefined ? undefined : accountOf(user);
  const grant = account === undefined ? undefined : { ...account, isPfOnly: privileged === true };
  await prepare(linuxContext(SILENT, processClock), systemTools(), pf, grant, (line) =>
    console.log(line),
  );
  if (account !== undefined) {
    console.log(
      `what the kernel grants to a process and not to a file is left to you: ${account.name} must be allowed to lock the VM's memory (ulimit -l, or LimitMEMLOCK= in a systemd unit)`,
    );
  }
  console.log(`${pf} is ready: vfio-user-sriov serve --pf=${pf} --socket-path=/tmp/pf.sock`);
}
