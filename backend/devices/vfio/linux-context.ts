// The real host: Linux's calls, its folders, and the processes for what must not be done here. Called by the commands.

import type { Log } from '../../../protocol/log.ts';
import { startDmaMapper } from './dma/dma-mapper.ts';
import type { HostContext } from './host-context.ts';
import { defaultStateFolder } from './host-state.ts';
import { linuxCalls } from './vfio/kernel-calls.ts';
import { startNumVfsWriter } from './vfs/numvfs-writer.ts';

export function linuxContext(log: Log): HostContext {
  return {
    calls: linuxCalls(),
    folders: { sysfs: '/sys', dev: '/dev', proc: '/proc', state: defaultStateFolder() },
    log,
    startWriter: startNumVfsWriter,
    startMapper: startDmaMapper,
  };
}
