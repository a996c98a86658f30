// The real host: Linux's calls, its folders, and a process that writes sriov_numvfs. Called by the commands.
import type { HostContext, Log } from './host-context.ts';
import { defaultStateFolder } from './host-state.ts';
import { linuxCalls } from './kernel-calls.ts';
import { startNumVfsWriter } from './numvfs-writer.ts';

export function linuxContext(log: Log): HostContext {
  return {
    calls: linuxCalls(),
    folders: { sysfs: '/sys', dev: '/dev', proc: '/proc', state: defaultStateFolder() },
    log,
    startWriter: startNumVfsWriter,
  };
}
