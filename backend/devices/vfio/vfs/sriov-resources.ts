// One VF's BARs, from the PF's `resource` lines in sysfs: VFIO shows neither their size nor a way to size them. Pure.
// Called when the device is described at start-up.
import { Errno } from '../../../../protocol/errno.ts';
import { HostError } from '../../../device/physical-device.ts';
import type { BarShape } from '../../../pci/bars.ts';
import { findExtendedCapability } from '../../../pci/capability-chain.ts';
import { registerIn } from '../../../pci/registers.ts';
import { ExtendedCapabilityId } from '../../../pci/spec/capability-ids.ts';
import { SRIOV } from '../../../pci/spec/sriov.ts';
import { ResourceFlag, type ResourceLine, VF_BAR_LINES } from '../sysfs.ts';

/** What the hardware's SR-IOV capability says that a backend needs. */
export interface SriovFacts {
  readonly totalVfs: number;
  readonly vfDeviceId: number;
}

/** Reads the SR-IOV capability out of a PF's config space. @throws HostError where there is none. */
export function sriovFacts(config: Uint8Array, pf: string): SriovFacts {
  const entry = findExtendedCapability(config, ExtendedCapabilityId.sriov);
  if (entry === undefined) {
    throw new HostError(
      'pread',
      Errno.ENOTSUP,
      pf,
      'it has no SR-IOV capability',
      'choose a physical function that has one (`lspci -vv` shows it)',
    );
  }
  return {
    totalVfs: registerIn(config, entry.offset, SRIOV.totalVfs),
    vfDeviceId: registerIn(config, entry.offset, SRIOV.vfDeviceId),
  };
}

/**
 * `totalVfs` is the capability's: drivers lower sriov_totalvfs, the window stays sized for all.
 * @throws HostError ENOMEM where the host gave a VF BAR no address: VFs cannot be enabled then.
 */
export function vfBarsOf(
  resources: readonly ResourceLine[],
  totalVfs: number,
  pf: string,
): BarShape[] {
  return resources.slice(...VF_BAR_LINES).flatMap(({ start, end, flags }, index): BarShape[] => {
    if ((flags & ResourceFlag.memory) === 0) {
      return [];
    }
    if (start === 0n) {
      throw noRoom(index, pf);
    }
    return [
      {
        index,
        size: Number(end - start + 1n) / totalVfs,
        kind: (flags & ResourceFlag.memory64) !== 0 ? 'memory64' : 'memory32',
        prefetchable: (flags & ResourceFlag.prefetchable) !== 0,
      },
    ];
  });
}

function noRoom(index: number, pf: string): HostError {
  return new HostError(
    'read',
    Errno.ENOMEM,
    pf,
    `the host has no address range for VF BAR ${index}`,
    'boot with pci=realloc, or turn on "Above 4G decoding" and SR-IOV support in the firmware',
  );
}
