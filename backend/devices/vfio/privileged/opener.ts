// What root's opener does for a backend of an ordinary user: opens the group of a VF of its own PF and hands it over, gives
// such a VF to vfio-pci, and names who holds one. It keeps nothing open, and touches no function but the VFs of that PF.

import { Errno } from '../../../../protocol/errno.ts';
import type { HostContext } from '../host-context.ts';
import type { PciFunctionFolder } from '../sysfs.ts';
import { groupPath } from '../vfio/group.ts';
import { Operation } from './messages.ts';
import type { Answer, Handlers, Reply } from './request-server.ts';
import { withVfLock } from './vf-lock.ts';

const VFIO_PCI = 'vfio-pci';

type OpenerContext = Pick<HostContext, 'calls' | 'folders' | 'clock' | 'holderOf' | 'bindVf'>;

/** For a RequestServer; `argument` is the number of a VF's IOMMU group. ENODEV: no VF of this PF has it. */
export function openerOf(context: OpenerContext, pf: PciFunctionFolder): Handlers {
  const { folders, calls, holderOf, bindVf } = context;
  const withVf = (work: (vf: PciFunctionFolder, group: string) => Promise<Answer>) => {
    const ofGroup = async (group: string): Promise<Answer> => {
      const vf = vfOfGroup(pf, group);
      return vf === undefined ? { errno: Errno.ENODEV } : work(vf, group);
    };
    return (group: number, reply: Reply) =>
      withVfLock(context, pf.bdf, () => ofGroup(String(group)), reply);
  };
  return {
    [Operation.openGroup]: withVf(async (vf, group) => {
      if (vf.driver !== VFIO_PCI) {
        return { errno: Errno.ENOENT };
      }
      // What else is in the group would be handed over with it.
      if (vf.groupMembers().some((bdf) => bdf !== vf.bdf)) {
        return { errno: Errno.EPERM };
      }
      const fd = await calls.open(groupPath(folders, group));
      return fd < 0 ? { errno: -fd } : { errno: 0, fd };
    }),
    [Operation.bindVf]: withVf(async (vf) => {
      // To take it from vfio-pci would wait for whoever holds it.
      if (vf.driver === VFIO_PCI) {
        return { errno: 0 };
      }
      try {
        await bindVf(vf);
        return { errno: 0 };
      } catch (error) {
        return { errno: -((error as NodeJS.ErrnoException).errno ?? -Errno.EIO) };
      }
    }),
    [Operation.nameHolder]: withVf(async (_vf, group) => ({
      errno: 0,
      text: await holderOf(group),
    })),
  };
}

function vfOfGroup(pf: PciFunctionFolder, group: string): PciFunctionFolder | undefined {
  return pf
    .virtualFunctions()
    .map((bdf) => pf.sibling(bdf))
    .find((vf) => vf.iommuGroup === group && vf.physicalFunction === pf.bdf);
}
