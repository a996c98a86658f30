// What keeps root's two processes apart: no group is opened between the look whether anybody holds a VF and the 0 that
// removes it. The kernel would wait inside that write, unkillably, for whoever opened it.

import { Errno } from '../../../../protocol/errno.ts';
import { askUntil, type Patience } from '../../../../protocol/retry.ts';
import { tryLock } from '../../../../protocol/unix/flock.ts';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import { makePrivateFolder } from '../../../../protocol/unix/private-file.ts';
import type { HostContext } from '../host-context.ts';
import type { Answer, Reply } from './request-server.ts';

/** The other process is at work for a moment, or for good where the kernel never comes back. */
const PATIENCE: Omit<Patience, 'clock'> = {
  patienceMilliseconds: 5_000,
  stepMilliseconds: 5,
};

/**
 * Replies what `work` gives, while the other process does nothing about the VFs of `pf`; EAGAIN where it does not end. A group
 * that is handed over is closed here before the other process looks who holds it.
 */
export async function withVfLock(
  { folders, clock }: Pick<HostContext, 'folders' | 'clock'>,
  pf: string,
  work: () => Promise<Answer>,
  reply: Reply,
): Promise<void> {
  makePrivateFolder(folders.state);
  const lock = await askUntil(
    () => tryLock(`${folders.state}/${pf}.vfs.lock`),
    (taken) => taken !== undefined,
    { clock, ...PATIENCE },
  );
  if (lock === undefined) {
    reply({ errno: Errno.EAGAIN });
    return;
  }
  try {
    reply(await work());
  } finally {
    closeFd(lock);
  }
}
