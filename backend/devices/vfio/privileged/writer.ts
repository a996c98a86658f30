// What root's writer does for a backend of an ordinary user: reads and writes the `sriov_numvfs` of its own PF. It believes
// no backend: before a 0 it opens the group of each VF itself, and while anybody holds one it writes none.

import { Errno } from '../../../../protocol/errno.ts';
import type { HostContext } from '../host-context.ts';
import type { PciFunctionFolder } from '../sysfs.ts';
import { groupPath } from '../vfio/group.ts';
import type { NumVfs } from '../vfs/numvfs-writer.ts';
import { Operation } from './messages.ts';
import type { Answer, Handlers } from './request-server.ts';
import { withVfLock } from './vf-lock.ts';

type WriterContext = Pick<HostContext, 'calls' | 'folders' | 'clock'>;

/** For a RequestServer. EBUSY of a 0: somebody holds a VF; ENODEV: another driver than vfio-pci has the PF. */
export function writerOf(context: WriterContext, pf: PciFunctionFolder, numVfs: NumVfs): Handlers {
  const write = async (count: number): Promise<Answer> => {
    if (pf.driver !== 'vfio-pci') {
      return { errno: Errno.ENODEV };
    }
    if (count > (pf.numberOf('sriov_totalvfs') ?? 0)) {
      return { errno: Errno.ERANGE };
    }
    const refused = count === 0 ? await whyVfsStay(context, pf) : 0;
    return { errno: refused === 0 ? await numVfs.write(count) : refused };
  };
  return {
    [Operation.readNumVfs]: async (argument, reply) =>
      reply(argument === 0 ? { errno: 0, value: await numVfs.read() } : { errno: Errno.EINVAL }),
    [Operation.writeNumVfs]: (count, reply) =>
      withVfLock(context, pf.bdf, () => write(count), reply),
  };
}

/** 0 where nobody has any VF open or mapped; else an errno. */
async function whyVfsStay(
  { calls, folders }: WriterContext,
  pf: PciFunctionFolder,
): Promise<number> {
  for (const bdf of pf.virtualFunctions()) {
    const group = pf.sibling(bdf).iommuGroup;
    if (group === undefined) {
      continue;
    }
    const fd = await calls.open(groupPath(folders, group));
    if (fd >= 0) {
      await calls.close(fd);
    } else if (fd !== -Errno.ENOENT) {
      // A VF that vfio-pci does not have has no file. Whatever else keeps this process from looking keeps the VFs.
      return -fd;
    }
  }
  return 0;
}
