// What keeps root's two processes apart: no group is opened between the look whether anybody holds a VF and the 0 that
// removes it. The kernel would wait inside that write, unkillably, for whoever opened it.

import { Errno } from '../../../../protocol/errno.ts';
import { askUntil, type Patience } from '../../../../protocol/retry.ts';
import { tryLock } from '../../../../protocol/unix/flock.ts';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import { makePrivateFolder } from '../../../../protocol/unix/private-file.ts';
import type { HostContext } from '../host-context.ts';
import type { Answer } from './request-server.ts';

/** The other process is at work for a moment, or for good where the kernel never comes back. */
const PATIENCE: Omit<Patience, 'clock'> = {
  patienceMilliseconds: 5_000,
  stepMilliseconds: 5,
};

/** Runs `work` while the other process does nothing about the VFs of `pf`; EAGAIN where it does not end. */
export async function withVfLock(
  { folders, clock }: Pick<HostContext, 'folders' | 'clock'>,
  pf: string,
  work: () => Promise<Answer>,
): Promise<Answer> {
  makePrivateFolder(folders.state);
  const lock = await askUntil(
    () => tryLock(`${folders.state}/${pf}.vfs.lock`),
    (taken) => taken !== undefined,
    { clock, ...PATIENCE },
  );
  if (lock === undefined) {
    return { errno: Errno.EAGAIN };
  }
  try {
    return await work();
  } finally {
    closeFd(lock);
  }
}
