// Which machine a running QEMU has, as far as the glue depends on it: how its config space is reached.
import type { Log } from '../../protocol/log.ts';
import { UserError } from '../../protocol/user-error.ts';
import { target } from './answers.ts';
import type { ConfigAccess } from './config-access.ts';
import { Ecam } from './ecam.ts';
import type { Monitor } from './monitor.ts';
import { Q35Config } from './q35-config.ts';

/** Rejects with UserError where the config space of this QEMU's machine is out of reach, and with the errors of QMP. */
export async function findConfigAccess(monitor: Monitor, log: Log): Promise<ConfigAccess> {
  const { arch } = await monitor.ask('query-target', target);
  if (arch === 'x86_64') {
    return new Q35Config(monitor, log);
  }
  if (arch === 'aarch64') {
    return await Ecam.ofVirt(monitor);
  }
  throw new UserError(
    `QEMU for ${arch}: VFs can be placed in a q35 (x86_64) and in a virt (aarch64) only`,
    'use qemu-system-x86_64 -machine q35, or qemu-system-aarch64 -machine virt',
  );
}
