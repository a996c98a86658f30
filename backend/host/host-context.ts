// What every part of backend/host works with: the kernel's calls, the folders, the log. openVfioDevice puts the real ones
// together; tests put theirs.
import type { DmaMapper } from './dma-mapper.ts';
import type { KernelCalls } from './kernel-calls.ts';
import type { NumVfs } from './numvfs-writer.ts';
import type { HostFolders } from './vfio-group.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type Log = (level: LogLevel, message: string, fields?: Record<string, unknown>) => void;

export interface HostContext {
  readonly calls: KernelCalls;
  readonly folders: HostFolders;
  readonly log: Log;
  /** Starts the process that writes `sriov_numvfs`, given the attribute's path. */
  readonly startWriter: (path: string) => NumVfs;
  /** Starts the process that maps guest memory. */
  readonly startMapper: () => DmaMapper;
}
