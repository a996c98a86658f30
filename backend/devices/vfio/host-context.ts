// What every part of devices/vfio works with: the kernel's calls, the folders, the log. openVfioDevice puts the real ones
// together; tests put theirs.
import type { Clock } from '../../../protocol/clock.ts';
import type { Log } from '../../../protocol/log.ts';
import type { DmaMapper } from './dma/dma-mapper.ts';
import type { PciFunctionFolder } from './sysfs.ts';
import type { HostFolders } from './vfio/group.ts';
import type { KernelCalls } from './vfio/kernel-calls.ts';
import type { NumVfs } from './vfs/numvfs-writer.ts';

export interface HostContext {
  readonly calls: KernelCalls;
  readonly folders: HostFolders;
  readonly log: Log;
  readonly clock: Clock;
  /** Starts the process that writes `sriov_numvfs`, given the attribute's path. */
  readonly startWriter: (path: string) => NumVfs;
  /** Has vfio-pci drive a VF. Rejects with the system's error. */
  readonly bindVf: (vf: PciFunctionFolder) => Promise<void>;
  /** Who holds an IOMMU group, for a sentence. */
  readonly holderOf: (group: string) => Promise<string>;
  /** Starts the process that maps guest memory. */
  readonly startMapper: () => DmaMapper;
}
