// Who holds a VFIO group or device: looked up in /proc, to name a process in an error. Reads only; sees other users'
// processes only with root's eyes. Called where a group turns out to be busy.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { attempt } from '../attempt.ts';

const DEVICE_LINK = 'anon_inode:[vfio-device]';

/** The holder of an IOMMU group, for a sentence: "pid 42 (qemu-system-x86)", or why it cannot be named. */
export function describeHolder(group: string, procRoot = '/proc', ownPid = process.pid): string {
  const groupPath = `/dev/vfio/${group}`;
  const holders: number[] = [];
  // A device fd outlives its group's fd and does not tell its group: such a process may be the one.
  const suspects: number[] = [];
  for (const pid of processes(procRoot)) {
    const files = openFiles(procRoot, pid);
    if (files.includes(groupPath)) {
      holders.push(pid);
    } else if (files.includes(DEVICE_LINK) || mapsDevice(procRoot, pid)) {
      suspects.push(pid);
    }
  }
  const others = (pids: readonly number[]) => pids.filter((pid) => pid !== ownPid);
  if (holders.length > 0) {
    return holders.map((pid) => nameOf(procRoot, pid)).join(' and ');
  }
  if (others(suspects).length > 0) {
    return others(suspects)
      .map((pid) => nameOf(procRoot, pid))
      .join(' or ');
  }
  if (suspects.includes(ownPid)) {
    return 'this process';
  }
  return 'a process that cannot be seen (look as root)';
}

function processes(procRoot: string): number[] {
  return readdirSync(procRoot)
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function openFiles(procRoot: string, pid: number): string[] {
  const folder = `${procRoot}/${pid}/fd`;
  const fds = attempt(() => readdirSync(folder)) ?? [];
  return fds.map((fd) => attempt(() => readlinkSync(`${folder}/${fd}`)) ?? '');
}

// A mapping of a BAR keeps the device open after its fd is closed.
function mapsDevice(procRoot: string, pid: number): boolean {
  const maps = attempt(() => readFileSync(`${procRoot}/${pid}/maps`, 'utf8')) ?? '';
  return maps.includes(DEVICE_LINK);
}

function nameOf(procRoot: string, pid: number): string {
  const name = attempt(() => readFileSync(`${procRoot}/${pid}/comm`, 'utf8').trim()) ?? '';
  return name === '' ? `pid ${pid}` : `pid ${pid} (${name})`;
}
