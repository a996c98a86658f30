// What prepare and release need of the system around the kernel: modprobe, udev, the list of accounts.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { UserError } from '../../protocol/user-error.ts';
import type { Account, PreparationTools } from '../devices/vfio/readiness/preparation.ts';

export function systemTools(): PreparationTools {
  return {
    loadModule(name) {
      try {
        execFileSync('modprobe', [name], { stdio: ['ignore', 'ignore', 'pipe'] });
      } catch (error) {
        const reason = (error as { stderr?: Buffer }).stderr?.toString().trim();
        throw new UserError(
          `modprobe ${name}: ${reason === undefined || reason === '' ? error : reason}`,
          'install a kernel that has VFIO',
        );
      }
    },
    udevRules: '/run/udev/rules.d',
    // A system without udev has nothing to reload; new files then belong to root.
    reloadUdev: () => askUdev('control', '--reload'),
    settleUdev: () => askUdev('settle', '--timeout=10'),
  };
}

function askUdev(...args: string[]): void {
  try {
    execFileSync('udevadm', args, { stdio: 'ignore' });
  } catch {
    // There is none, or it takes longer than anybody waits.
  }
}

/** Looks a user up. @throws UserError */
export function accountOf(name: string): Account {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith(`${name}:`));
  if (line === undefined) {
    throw new UserError(`--user=${name}: there is no such user`, 'name one of /etc/passwd');
  }
  const [, , uid, gid] = line.split(':');
  return { name, uid: Number(uid), gid: Number(gid) };
}
