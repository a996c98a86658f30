// The real host: Linux's calls, its folders, and the processes for what must not be done here. Called by the commands.

import { basename } from 'node:path';
import type { Clock } from '../../../protocol/clock.ts';
import { Errno } from '../../../protocol/errno.ts';
import type { Log } from '../../../protocol/log.ts';
import { startDmaMapper } from './dma/dma-mapper.ts';
import type { HostContext } from './host-context.ts';
import { defaultStateFolder } from './host-state.ts';
import { PrivilegedHost } from './privileged/privileged-host.ts';
import { describeHolder } from './readiness/holders.ts';
import { linuxCalls } from './vfio/kernel-calls.ts';
import { bindVf } from './vfs/bind-vf.ts';
import { startNumVfsWriter } from './vfs/numvfs-writer.ts';

const NOT_ALLOWED: readonly number[] = [-Errno.EACCES, -Errno.EPERM];

/** `privileged`: the folder of the sockets of root's processes, which are asked for what this user may not do itself. */
export function linuxContext(log: Log, clock: Clock, privileged?: string): HostContext {
  const context: HostContext = {
    calls: linuxCalls(),
    folders: { sysfs: '/sys', dev: '/dev', proc: '/proc', state: defaultStateFolder() },
    log,
    clock,
    startWriter: (path) => startNumVfsWriter(path, clock),
    bindVf,
    holderOf: async (group) => describeHolder(group),
    startMapper: () => startDmaMapper(clock),
  };
  return privileged === undefined
    ? context
    : withRoot(context, new PrivilegedHost(privileged, clock));
}

/** What is asked of root. */
export type Root = Pick<PrivilegedHost, 'openGroup' | 'bindVf' | 'holderOf' | 'numVfs'>;

/** A context whose VFs root's processes open and bind, and whose number they write. */
export function withRoot(context: HostContext, root: Root): HostContext {
  const { calls } = context;
  return {
    ...context,
    calls: {
      ...calls,
      async open(path) {
        const fd = await calls.open(path);
        const group = basename(path);
        return NOT_ALLOWED.includes(fd) && /^\d+$/.test(group) ? root.openGroup(group) : fd;
      },
    },
    startWriter: (path) => root.numVfs(path),
    bindVf: (vf) => root.bindVf(vf.iommuGroup ?? ''),
    holderOf: (group) => root.holderOf(group),
  };
}
