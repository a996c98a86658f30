// Opening an IOMMU group and the function in it, with the VF token. Each refusal of the kernel is told apart: who
// holds the group, which neighbour makes it unviable, whose permission is missing. Called by openFunction.

import type { Clock } from '../../../../protocol/clock.ts';
import { Errno, errnoName } from '../../../../protocol/errno.ts';
import { askUntil, type Patience } from '../../../../protocol/retry.ts';
import { HostError } from '../../../device/physical-device.ts';
import { describeHolder } from '../readiness/holders.ts';
import { PciFunctionFolder } from '../sysfs.ts';
import { GroupStatus, GroupStatusFlag, VfioRequest } from './abi.ts';
import type { KernelCalls } from './kernel-calls.ts';

/** How long a device that is busy for the moment is asked again, and how often. */
const OPEN_PATIENCE: Omit<Patience, 'clock'> = {
  patienceMilliseconds: 5_000,
  stepMilliseconds: 20,
};
/** How long udev may take to give a new group's file to its owner. */
const NODE_PATIENCE: Omit<Patience, 'clock'> = {
  patienceMilliseconds: 8_000,
  stepMilliseconds: 20,
};

/** Where things are on this host; other folders in tests. */
export interface HostFolders {
  readonly sysfs: string;
  readonly dev: string;
  readonly proc: string;
  /** Where this program notes what it changed on the host: locks and state files. */
  readonly state: string;
}

export function groupPath(folders: HostFolders, group: string): string {
  return `${folders.dev}/vfio/${group}`;
}

/** What opening takes of a HostContext. */
export interface OpeningContext {
  readonly calls: KernelCalls;
  readonly folders: HostFolders;
  readonly clock: Clock;
}

/** An IOMMU group that is opened for the sake of one function in it. */
export interface GroupRequest {
  readonly group: string;
  readonly bdf: string;
  /** The function has just appeared: the group's file may still be on its way. */
  readonly isNew?: boolean;
}

/** Opens a group's file and checks that it can be used. @throws HostError */
export async function openGroup(
  { calls, folders, clock }: OpeningContext,
  { group, bdf, isNew = false }: GroupRequest,
): Promise<number> {
  const path = groupPath(folders, group);
  const fd = await openPatiently(calls, clock, path, isNew);
  if (fd < 0) {
    throw groupRefused(-fd, path, folders, { group, bdf });
  }
  const status = GroupStatus.encode({ argsz: GroupStatus.size, flags: 0 });
  const result = calls.ioctl(fd, VfioRequest.groupGetStatus, status);
  const isViable = (GroupStatus.decode(status).flags & GroupStatusFlag.viable) !== 0;
  if (result >= 0 && isViable) {
    return fd;
  }
  await calls.close(fd);
  throw new HostError(
    'VFIO_GROUP_GET_STATUS',
    result < 0 ? -result : Errno.EPERM,
    path,
    'the group is not viable: another device in it is bound to a driver of the host',
    `bind every device of /sys/kernel/iommu_groups/${group}/devices to vfio-pci`,
  );
}

/** Whether anybody has the group's device open, if only by a mapping. Opens nothing for longer than it looks. */
export async function isGroupHeld(
  calls: KernelCalls,
  folders: HostFolders,
  group: string,
): Promise<boolean> {
  const fd = await calls.open(groupPath(folders, group));
  if (fd === -Errno.EBUSY) {
    return true;
  }
  if (fd >= 0) {
    await calls.close(fd);
  }
  return false;
}

/** Opens a function of a group that is in a container; the kernel resets it, 0.1 s. @throws HostError */
export async function openDevice(
  { calls, clock }: OpeningContext,
  groupFd: number,
  bdf: string,
  token: string,
): Promise<number> {
  const name = new TextEncoder().encode(`${bdf} vf_token=${token}\0`);
  // The kernel tries to lock the device for its reset and does not wait for it.
  const fd = await askUntil(
    () => calls.ioctlLater(groupFd, VfioRequest.groupGetDeviceFd, name),
    (answer) => answer !== -Errno.EAGAIN,
    { clock, ...OPEN_PATIENCE },
  );
  if (fd < 0) {
    throw deviceRefused(-fd, bdf);
  }
  return fd;
}

async function openPatiently(
  calls: KernelCalls,
  clock: Clock,
  path: string,
  isNew: boolean,
): Promise<number> {
  const mayComeYet = [-Errno.EACCES, -Errno.ENOENT, -Errno.EPERM];
  return askUntil(
    () => calls.open(path),
    (fd) => !isNew || !mayComeYet.includes(fd),
    { clock, ...NODE_PATIENCE },
  );
}

function groupRefused(
  errno: number,
  path: string,
  folders: HostFolders,
  { group, bdf }: GroupRequest,
): HostError {
  const pf = new PciFunctionFolder(folders.sysfs, bdf).physicalFunction ?? bdf;
  switch (errno) {
    case Errno.EBUSY: {
      const holder = describeHolder(group, folders.proc);
      return new HostError('open', errno, path, `in use by ${holder}`, 'end that process first');
    }
    case Errno.ENOENT:
      return new HostError(
        'open',
        errno,
        path,
        'the group has no file: its device is not bound to vfio-pci',
        `run \`vfio-user-sriov prepare --pf=${pf}\``,
      );
    case Errno.EACCES:
    case Errno.EPERM:
      return new HostError(
        'open',
        errno,
        path,
        'no permission',
        `run as root, or run \`vfio-user-sriov prepare --pf=${pf} --user=NAME\` once as root`,
      );
    default:
      return new HostError('open', errno, path, errnoName(errno));
  }
}

function deviceRefused(errno: number, bdf: string): HostError {
  const call = 'VFIO_GROUP_GET_DEVICE_FD';
  switch (errno) {
    case Errno.EACCES:
      return new HostError(
        call,
        errno,
        bdf,
        'another VF token is in force: somebody else has VFs of this PF open',
        'end that process first',
      );
    case Errno.EAGAIN:
      return new HostError(
        call,
        errno,
        bdf,
        'the kernel keeps the device locked: a reset, an unbind or a write of sriov_numvfs is under way',
        'look for a process that is stuck in sysfs, and try again',
      );
    case Errno.EINVAL:
      return new HostError(
        call,
        errno,
        bdf,
        'the kernel takes no VF token for it: it is no SR-IOV function of vfio-pci',
        'check that its PF is bound to vfio-pci',
      );
    case Errno.EIO:
    case Errno.ENODEV:
      return new HostError(
        call,
        errno,
        bdf,
        `the device does not answer (${errnoName(errno)})`,
        'see dmesg; a power cycle of the host may be needed',
      );
    default:
      return new HostError(call, errno, bdf, `cannot be opened (${errnoName(errno)})`);
  }
}
