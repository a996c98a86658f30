// What a refused write of `sriov_numvfs` means: cause and fix for each errno. Pure. Called by VfSet.
// Source: Linux, drivers/pci/iov.c (sriov_numvfs_store, sriov_enable) and vfio-pci's sriov_configure.
import { Errno, errnoName } from '../../../../protocol/errno.ts';
import { HostError } from '../../../device/physical-device.ts';

/** What the error can be told apart by. */
export interface NumVfsSituation {
  readonly path: string;
  readonly pf: string;
  readonly totalVfs: number;
  /** vfio-pci's parameter, "Y" or "N"; undefined where vfio-pci is not loaded. */
  readonly enableSriov: string | undefined;
  readonly driver: string | undefined;
}

/** The error for a write of `count` that the kernel refused with `errno`. */
export function numVfsFailure(errno: number, count: number, situation: NumVfsSituation): HostError {
  const { message, fix } = explain(errno, count, situation);
  return new HostError('write', errno, situation.path, `${count} VFs refused: ${message}`, fix);
}

function explain(
  errno: number,
  count: number,
  { pf, totalVfs, enableSriov, driver }: NumVfsSituation,
): { message: string; fix: string } {
  switch (errno) {
    case Errno.ENOENT:
      if (driver === undefined) {
        return { message: 'the PF has no driver', fix: `vfio-user-sriov prepare --pf=${pf}` };
      }
      if (enableSriov !== 'Y') {
        return {
          message: 'vfio-pci is loaded with enable_sriov off',
          fix: `vfio-user-sriov prepare --pf=${pf}, or echo 1 > /sys/module/vfio_pci/parameters/enable_sriov`,
        };
      }
      return { message: `the driver ${driver} makes no VFs`, fix: 'bind the PF to vfio-pci' };
    case Errno.EBUSY:
      if (count === 0) {
        return { message: 'somebody holds a VF', fix: 'end the process that holds it' };
      }
      return {
        message: 'VFs are enabled already',
        fix: `disable them first: echo 0 > /sys/bus/pci/devices/${pf}/sriov_numvfs`,
      };
    case Errno.ERANGE:
      return { message: `the PF has at most ${totalVfs}`, fix: 'ask for fewer' };
    case Errno.ENOMEM:
      return {
        message: `not enough address space or bus numbers for ${count} VFs`,
        fix: 'boot with pci=realloc,assign-busses, or turn on SR-IOV and "Above 4G decoding" in the firmware; dmesg says which',
      };
    case Errno.EACCES:
    case Errno.EPERM:
      return {
        message: 'no permission',
        fix: `run as root, or once as root: vfio-user-sriov prepare --pf=${pf} --user=NAME; or, where root’s writer runs, give --privileged=FOLDER`,
      };
    case Errno.EIO:
      return {
        message: 'the device does not show the VFs it should',
        fix: 'see dmesg; reset the device or power the host down and up',
      };
    case Errno.ENODEV:
    case Errno.ENOSYS:
      return {
        message: 'the function depends on another one (Function Dependency Link)',
        fix: 'enable VFs on the function that it depends on',
      };
    case Errno.ECANCELED:
      return {
        message: 'the kernel asks for the PF back: somebody unbinds it',
        fix: `prepare it again: vfio-user-sriov prepare --pf=${pf}`,
      };
    case Errno.EPIPE:
      return {
        message: 'the process that writes it has ended',
        fix: 'start the backend again',
      };
    default:
      return { message: errnoName(errno), fix: 'see dmesg' };
  }
}
