// A program and all that it started, by Linux's account of them.
import { readFileSync } from 'node:fs';

/** Children, their children and so on; of a process that has ended there are none. */
export function descendantsOf(pid: number): number[] {
  const list = read(`/proc/${pid}/task/${pid}/children`);
  const children = list.split(' ').filter(Boolean).map(Number);
  return [...children, ...children.flatMap(descendantsOf)];
}

/** CPU time of a process and all that it started, in milliseconds. Linux counts it in hundredths of a second for /proc. */
export function cpuMillisecondsOf(pid: number): number {
  const each = [pid, ...descendantsOf(pid)].map(ownCpuMilliseconds);
  return each.reduce((sum, milliseconds) => sum + milliseconds, 0);
}

/** Of all its threads, and of its children that have ended. */
function ownCpuMilliseconds(pid: number): number {
  const stat = read(`/proc/${pid}/stat`);
  // Behind the name, which may have spaces: state, then ten numbers, then utime, stime, cutime and cstime.
  const times = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 15);
  return 10 * times.reduce((sum, time) => sum + Number(time), 0);
}

/** Nothing of a process that has ended. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
