// The virtual host as a story sees it: its PF, its VFs, its kernel's log and its processes. "Host" is the kernel on
// which the backend runs, one level outside the nested guest.
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { until } from './story.ts';

const COMPLAINTS =
  /WARNING|BUG:|Oops|general protection|hung_task|blocked for more|DMAR:.*fault|Device is currently in use|No device request channel/;

export class Pf {
  readonly bdf: string;
  readonly folder: string;

  constructor(bdf: string) {
    this.bdf = bdf;
    this.folder = `/sys/bus/pci/devices/${bdf}`;
  }

  read(attribute: string): string {
    return readFileSync(`${this.folder}/${attribute}`, 'utf8').trim();
  }

  write(attribute: string, value: string): void {
    writeFileSync(`${this.folder}/${attribute}`, value);
  }

  get driver(): string {
    try {
      return basename(readlinkSync(`${this.folder}/driver`));
    } catch {
      return 'none';
    }
  }

  /** How many VFs the host has; from the links, which can be read while sriov_numvfs is being written. */
  get vfCount(): number {
    return readdirSync(this.folder).filter((name) => name.startsWith('virtfn')).length;
  }
}

/** The host's own igb enables VFs and disables them; gives the milliseconds of each, and leaves the PF without a driver. */
export async function bareEnable(
  pf: Pf,
  count: number,
): Promise<{ enable: number; disable: number }> {
  shell('load igb');
  const name = readdirSync(`${pf.folder}/net`)[0];
  shell(`ip link set ${name} up`);
  await until('link of the PF', () => shell(`cat /sys/class/net/${name}/carrier`) === '1');
  const start = performance.now();
  pf.write('sriov_numvfs', String(count));
  const middle = performance.now();
  pf.write('sriov_numvfs', '0');
  const end = performance.now();
  shell('rmmod igb');
  return { enable: Math.round(middle - start), disable: Math.round(end - middle) };
}

/** Runs the project's command line and gives its output. */
export function cli(...args: readonly string[]): string {
  return execFileSync(process.execPath, ['/project/dist/cli.js', ...args], { encoding: 'utf8' });
}

/** The recording of a guest: its drivers broke no rule of the standard. */
export function expectCleanRecording(path: string): void {
  const explained = cli('trace', path, '--explain');
  assert.match(explained, /^nothing that the standard forbids\n/, explained);
}

/** What the standard forbids and a recording has, one line each; that drivers waited must have been judged. */
export function recordedFindings(path: string): string[] {
  const explained = cli('trace', path, '--explain');
  assert.doesNotMatch(explained, /^not judged: (enable|disable)-wait/m);
  return explained.split('\n').filter((line) => /^ *\d+\.\d{6} /.test(line));
}

/** Runs a shell command of the host. */
export function shell(command: string): string {
  return execFileSync('/bin/sh', ['-c', command], { encoding: 'utf8' }).trim();
}

/** Lines of the kernel's log that tell of trouble. */
export function kernelComplaints(): string[] {
  return shell('dmesg')
    .split('\n')
    .filter((line) => COMPLAINTS.test(line));
}

/** Tasks that nothing can end; those that are for a moment only are not counted. */
export async function stuckTasks(): Promise<string[]> {
  const before = new Set(tasksInState('D'));
  if (before.size === 0) {
    return [];
  }
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  return tasksInState('D').filter((task) => before.has(task));
}

/** What must hold of the host once everything of a story has ended: the PF is ours, no VF, no complaint, nobody stuck. */
export async function expectQuietHost(pfs: readonly Pf[]): Promise<void> {
  for (const pf of pfs) {
    await until(`${pf.bdf} without VFs`, () => pf.vfCount === 0);
    assert.equal(pf.driver, 'vfio-pci');
  }
  assert.deepEqual(kernelComplaints(), []);
  assert.deepEqual(await stuckTasks(), []);
}

function tasksInState(state: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        const match = /^(\d+) \((.*)\) (.)/.exec(stat);
        return match?.[3] === state ? [`${match[1]} ${match[2]}`] : [];
      } catch {
        // It has ended meanwhile.
        return [];
      }
    });
}
