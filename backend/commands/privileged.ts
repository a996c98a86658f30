// `privileged opener|writer --pf=… --user=…`: root's two small processes for the backend of an ordinary user, which does all
// else itself. They answer that user and root, and only about the VFs of that PF. Started by systemd, or by root.

import { lchownSync } from 'node:fs';
import { Argument, Command } from 'commander';
import { activatedFd } from '../../protocol/launch/activation.ts';
import { type LogOptions, logOptions, makeLog } from '../../protocol/logging/stderr-log.ts';
import { onEndingSignal } from '../../protocol/unix/ending-signals.ts';
import { setCloseOnExec, setNonBlocking, streamSocketKind } from '../../protocol/unix/fd-socket.ts';
import { closeListener, listenUnix } from '../../protocol/unix/listener.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { UserError } from '../../protocol/user-error.ts';
import type { HostContext } from '../devices/vfio/host-context.ts';
import { linuxContext } from '../devices/vfio/linux-context.ts';
import { openerOf } from '../devices/vfio/privileged/opener.ts';
import { type Handlers, RequestServer } from '../devices/vfio/privileged/request-server.ts';
import { writerOf } from '../devices/vfio/privileged/writer.ts';
import type { Account } from '../devices/vfio/readiness/preparation.ts';
import { PciFunctionFolder } from '../devices/vfio/sysfs.ts';
import { directNumVfs } from '../devices/vfio/vfs/numvfs-writer.ts';
import { pfOption } from './pf-option.ts';
import { accountOf } from './preparation-tools.ts';
import { requireRoot } from './root.ts';

const ROOT = 0;

interface PrivilegedOptions extends LogOptions {
  readonly pf: string;
  readonly user: string;
  readonly socketPath?: string;
}

const ROLES: Readonly<Record<string, (context: HostContext, pf: PciFunctionFolder) => Handlers>> = {
  opener: openerOf,
  writer: (context, pf) =>
    writerOf(context, pf, directNumVfs(pf.attributePath('sriov_numvfs'), context.clock)),
};

export function privilegedCommand(): Command {
  const command = new Command('privileged')
    .description(
      'Does for the backend of an ordinary user what root alone may (root): `opener` opens the groups of VFs, gives VFs to vfio-pci ' +
        'and names their holders, `writer` writes sriov_numvfs, and no 0 while anybody holds a VF. Neither does anything about ' +
        'another PF. `serve --privileged=FOLDER` asks them, at FOLDER/opener.sock and FOLDER/writer.sock.',
    )
    .addArgument(new Argument('<role>', 'which of the two').choices(Object.keys(ROLES)))
    .addOption(pfOption().makeOptionMandatory())
    .requiredOption('--user <name>', 'whose backend may ask, besides root')
    .option('--socket-path <path>', 'where it asks (default: the socket that systemd passes)')
    .addHelpText(
      'after',
      '\nExample:\n  sudo vfio-user-sriov privileged opener --pf=0000:01:00.0 --user="$USER" --socket-path=/run/vfs/opener.sock\n',
    )
    .action(servePrivileged);
  for (const option of logOptions()) {
    command.addOption(option);
  }
  return command;
}

async function servePrivileged(role: string, options: PrivilegedOptions): Promise<void> {
  requireRoot('privileged');
  const { pf, user } = options;
  const account = accountOf(user);
  const { fd, close } = listenerOf(options, account);
  const log = await makeLog(options);
  const context = linuxContext(log, processClock);
  const server = new RequestServer({
    listener: fd,
    users: [ROOT, account.uid],
    handlers: ROLES[role]!(context, new PciFunctionFolder(context.folders.sysfs, pf)),
    clock: context.clock,
    log,
  });
  log.info(`the ${role} of ${pf} answers ${user}`);
  onEndingSignal(log, () => {
    server.close();
    close();
    process.exit();
  });
}

/** For that user alone; `close` leaves to systemd what is systemd's. @throws UserError | SyscallError */
function listenerOf(
  { socketPath }: PrivilegedOptions,
  { uid, gid }: Account,
): { fd: number; close: () => void } {
  if (socketPath !== undefined) {
    const listener = listenUnix(socketPath);
    lchownSync(socketPath, uid, gid);
    return { fd: listener.fd, close: () => closeListener(listener) };
  }
  const fd = activatedFd(process.env, process.pid);
  if (fd === undefined || streamSocketKind(fd) !== 'listening') {
    throw new UserError(
      'nobody can ask: no socket is named, and systemd passes none that listens',
      'give --socket-path=PATH, or start the .socket unit',
      2,
    );
  }
  setCloseOnExec(fd);
  setNonBlocking(fd);
  return { fd, close: () => {} };
}
