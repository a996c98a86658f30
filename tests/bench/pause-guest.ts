// The virtual machine of the guest-pause benchmark: a guest Linux in stock QEMU, started as a user starts it, that
// enables VFs; with the glue's own account of every enable, and a second monitor for the baseline.
import { readdirSync, readFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import type { EnableTiming } from '../../vmm-glue/choreography/enable.ts';
import { GuestVm } from '../lab/guest.ts';
import { guestArguments } from '../lab/guest-arguments.ts';
import { writeInitramfs } from '../lab/initramfs.ts';
import type { Lab } from '../lab/lab.ts';
import { registerReader } from '../lab/register-reader.ts';
import { cpuMillisecondsOf, descendantsOf } from '../process-tree.ts';
import { BareMonitor } from './bare-monitor.ts';
import { rounded } from './figure.ts';
import { repositoryRoot, residentKibibytes } from './server-process.ts';

/** The first function behind the first root port, where the launcher puts the PF by default. */
const PF_BUS = 1;
const SYSFS = '/sys/bus/pci/devices/0000:01:00.0';
/** With ACPI hot-plug QEMU's ports never show their link as active, and Linux takes every bus reset for failed. */
const BUS_RESETS = ['-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'];
const TIMING_MILLISECONDS = 60_000;
const WRITE_LIMIT = { timeoutMs: TIMING_MILLISECONDS };
/** Where BAR 0 of the loopback device's VFs has memory. */
const MEMORY_PAGE = 0x2000;

const IOMMU = {
  machineProperties: ['kernel-irqchip=split'],
  append: ['intel_iommu=on', 'iommu=nopt'],
  devices: ['-device', 'intel-iommu,intremap=on,caching-mode=on'],
};
/** The backend counts anew for who asks that much later. */
const METRICS_MILLISECONDS = 250;

/** Of a boot, in milliseconds: until the guest runs, and then until it takes commands; and of the CPU, by launcher, backend and QEMU. */
export interface BootTimes {
  readonly start: number;
  readonly startCpu: number;
  readonly guest: number;
  readonly guestCpu: number;
}

/** What a process has. */
export interface Used {
  readonly files: number;
  readonly mebibytes: number;
}

/** What the glue says of mapping VFs: its time, and what of that adding carriers and pauses of the guest took. */
export interface MappingReport {
  readonly vfs: number;
  readonly milliseconds: number;
  readonly addMilliseconds: number;
  readonly pauses: number;
  readonly pausedMilliseconds: number;
  readonly longestPauseMilliseconds: number;
  /** Of the guest's CPUs, by QEMU's own account. */
  readonly longestStandstillMilliseconds: number;
  /** To QEMU, in the pause that had most. */
  readonly mostCommands: number;
  /** Of commands that the guest did not stand still for. */
  readonly longestCommandMilliseconds: number;
}

/** One enable and the disable after it: how long the guest's writes took, and CPU time as in BootTimes. */
export interface Round {
  readonly enable: number;
  readonly disable: number;
  readonly cpu: number;
}

/** VFs that are mapped; `files` and `mebibytes` are QEMU's. */
export interface Mapped extends Used, Round {
  readonly report: MappingReport;
  /** Functions that QEMU is connected to, and DMA_MAPs that all of them were told since before the enable. */
  readonly sessions: number;
  readonly maps: number;
}

/** What the glue says of slots that it has placed ahead of an enable. */
export interface PlacedAhead {
  readonly slots: number;
  readonly commands: number;
  readonly pauses: number;
  readonly pausedMilliseconds: number;
  readonly longestPauseMilliseconds: number;
  /** Of the guest's CPUs, by QEMU's own account. */
  readonly longestStandstillMilliseconds: number;
}

export class PauseGuest {
  readonly monitor: BareMonitor;
  readonly bootTimes: BootTimes;
  readonly #vm: GuestVm;
  readonly #metrics: string;
  #timingsTaken = 0;

  /** Boots a guest in which the PF has a driver. `more` = further options of `vfio-user-sriov qemu`; `qemu` = arguments of QEMU's. */
  static async boot(
    paths: Lab,
    folder: string,
    more: readonly string[],
    { hasIommu = false, qemu = [] }: { hasIommu?: boolean; qemu?: readonly string[] } = {},
  ): Promise<PauseGuest> {
    const initrd = await writeInitramfs({
      file: join(folder, 'initrd'),
      busybox: paths.busybox,
      modulesFolder: paths.modules,
      modules: ['pci-pf-stub'],
      files: [await registerReader(folder)],
    });
    const path = join(folder, 'baseline.qmp');
    const cli = join(repositoryRoot(), 'dist/cli.js');
    const metrics = join(folder, 'metrics.sock');
    const own = ['--loopback', '--log-format=json', `--metrics=unix:${metrics}`];
    const launcher = ['qemu', ...own, ...more, '--', paths.qemu];
    const { devices, ...machine } = hasIommu ? IOMMU : { devices: [] };
    const guest = guestArguments({ kernel: paths.kernel, initrd, ...machine }).concat(devices);
    const began = performance.now();
    const vm = await GuestVm.start({
      command: process.execPath,
      args: [
        ...[cli, ...launcher, ...guest, ...BUS_RESETS, ...qemu],
        ...['-qmp', `unix:${path},server=on,wait=off`],
      ],
    });
    try {
      // QEMU greets when it has all its devices, and the guest begins.
      const monitor = await BareMonitor.connect(path);
      const start = performance.now() - began;
      const startCpu = cpuMillisecondsOf(vm.pid);
      await vm.waitForBoot();
      const guest = performance.now() - began - start;
      const times = { start, startCpu, guest, guestCpu: cpuMillisecondsOf(vm.pid) - startCpu };
      const booted = new PauseGuest(vm, monitor, metrics, times);
      await booted.#bindDriver();
      return booted;
    } catch (error) {
      await vm.kill();
      throw error;
    }
  }

  private constructor(vm: GuestVm, monitor: BareMonitor, metrics: string, bootTimes: BootTimes) {
    this.#vm = vm;
    this.monitor = monitor;
    this.#metrics = metrics;
    this.bootTimes = bootTimes;
  }

  /** Enables VFs, waits until they are mapped, and takes them away again; what QEMU has meanwhile, and what the glue says. */
  async enableMapped(numVfs: number): Promise<Mapped> {
    const before = mappingsIn(this.#vm.processOutput).length;
    const mapsBefore = await this.#sum('dma_maps_total');
    let whileMapped = { maps: 0, sessions: 0, files: 0, mebibytes: 0 };
    const round = await this.enableTrapped(numVfs, async () => {
      await this.#until('VFs mapped', () => mappingsIn(this.#vm.processOutput).length > before);
      whileMapped = {
        maps: (await this.#sum('dma_maps_total')) - mapsBefore,
        sessions: await this.#sum('attached'),
        ...usedBy(this.qemuPid()),
      };
    });
    const report = mappingsIn(this.#vm.processOutput).at(-1)!;
    return { report, ...round, ...whileMapped };
  }

  /** Enables VFs, waits for `meanwhile`, and takes them away again. */
  async enableTrapped(numVfs: number, meanwhile = async (): Promise<void> => {}): Promise<Round> {
    const before = this.cpuMilliseconds();
    const enable = await this.#timedWrite(numVfs);
    await meanwhile();
    const disable = await this.#timedWrite(0);
    return { enable, disable, cpu: this.cpuMilliseconds() - before };
  }

  /** Milliseconds that the guest takes to write sriov_numvfs. */
  async #timedWrite(numVfs: number): Promise<number> {
    const began = performance.now();
    await this.#vm.check(`echo ${numVfs} > ${SYSFS}/sriov_numvfs`, WRITE_LIMIT);
    return performance.now() - began;
  }

  /** CPU time of one 4-byte read of a VF's memory, as in BootTimes, in milliseconds. */
  async readCost(reads: number): Promise<number> {
    await this.#vm.check(`echo 1 > ${SYSFS}/sriov_numvfs && echo 1 > ${SYSFS}/virtfn0/enable`);
    const file = `${SYSFS}/virtfn0/resource0`;
    const once = async (count: number): Promise<number> => {
      const before = this.cpuMilliseconds();
      await this.#vm.check(`register-read ${file} ${MEMORY_PAGE} ${count}`, WRITE_LIMIT);
      return this.cpuMilliseconds() - before;
    };
    // Less what starting a program takes.
    const starting = await once(1);
    const cost = (await once(reads)) - starting;
    await this.#vm.check(`echo 0 > ${SYSFS}/sriov_numvfs`);
    return cost / reads;
  }

  qemuPid(): number {
    const pid = descendantsOf(this.#vm.pid).find((each) =>
      readFileSync(`/proc/${each}/cmdline`, 'utf8').includes('vfio-user-pci'),
    );
    if (pid === undefined) {
      throw new Error('the launcher has no QEMU');
    }
    return pid;
  }

  /** CPU time so far, of launcher, backend and QEMU, in milliseconds. */
  cpuMilliseconds(): number {
    return cpuMillisecondsOf(this.#vm.pid);
  }

  /** Of a metric, over all functions. */
  async #sum(metric: string): Promise<number> {
    await sleep(METRICS_MILLISECONDS);
    const page = await new Promise<string>((resolve, reject) => {
      get({ socketPath: this.#metrics, path: '/metrics' }, (answer) => resolve(text(answer))).on(
        'error',
        reject,
      );
    });
    const values = page.matchAll(new RegExp(`^vfio_user_sriov_${metric}{.*} (\\d+)$`, 'gm'));
    return [...values].reduce((sum, [, value]) => sum + Number(value), 0);
  }

  /** Resets the bus behind the root port: the placement of every slot is lost, and all are placed again. Only without VFs. */
  async resetBus(): Promise<PlacedAhead> {
    const before = placedAheadIn(this.#vm.processOutput).length;
    await this.#vm.check(`echo bus > ${SYSFS}/reset_method && echo 1 > ${SYSFS}/reset`);
    await this.#until(
      'slots placed ahead',
      () => placedAheadIn(this.#vm.processOutput).length > before,
    );
    return placedAheadIn(this.#vm.processOutput).at(-1)!;
  }

  /**
   * Enables VFs and takes them away again; gives what the glue says of the enable. Undefined where the guest gave up:
   * on a machine so busy that QEMU takes 0.1 s to stop it, it looks for its VFs before they are there.
   */
  async enable(numVfs: number): Promise<EnableTiming | undefined> {
    const numVfsFile = `${SYSFS}/sriov_numvfs`;
    const { status } = await this.#vm.run(`echo ${numVfs} > ${numVfsFile}`);
    const timing = await this.#nextTiming();
    if (status !== 0) {
      return undefined;
    }
    if (timing.placedVfs !== numVfs) {
      throw new Error(`${timing.placedVfs} VFs were placed, not ${numVfs} (${timing.outcome})`);
    }
    await this.#vm.check(`echo 0 > ${numVfsFile}`);
    return timing;
  }

  /** Whether the guest's kernel has put the VF BARs above 4 GiB. */
  async hasHighVfBars(): Promise<boolean> {
    // Six BARs and the ROM have a line each before the first VF BAR: "start end flags".
    const start = await this.#vm.check(`sed -n 8p ${SYSFS}/resource | cut -d' ' -f1`);
    return BigInt(start) >= 1n << 32n;
  }

  /** Value of port 0xCF8 that selects a register of a VF's slot. */
  slotAddress(vfIndex: number, register: number): number {
    return 0x8000_0000 + (PF_BUS << 16) + ((vfIndex + 1) << 8) + register;
  }

  async end(): Promise<void> {
    this.monitor.close();
    await this.#vm.kill();
  }

  async #bindDriver(): Promise<void> {
    await this.#vm.check(
      `echo pci-pf-stub > ${SYSFS}/driver_override && echo 0000:01:00.0 > /sys/bus/pci/drivers_probe`,
    );
  }

  async #nextTiming(): Promise<EnableTiming> {
    const timings = (): EnableTiming[] => timingsIn(this.#vm.processOutput);
    await this.#until('enable', () => timings().length > this.#timingsTaken);
    return timings()[this.#timingsTaken++]!;
  }

  async #until(what: string, isLogged: () => boolean): Promise<void> {
    const deadline = Date.now() + TIMING_MILLISECONDS;
    while (!isLogged()) {
      if (Date.now() >= deadline) {
        throw new Error(`the launcher logged no ${what}:\n${this.#vm.processOutput.slice(-4000)}`);
      }
      await sleep(5);
    }
  }
}

/** What a process has: files that are open, and memory of its own. */
export function usedBy(pid: number): Used {
  const files = readdirSync(`/proc/${pid}/fd`).length;
  return { files, mebibytes: rounded(residentKibibytes(pid).anonymous / 1024) };
}

/** The glue's account of each time that it has mapped VFs. */
function mappingsIn(log: string): MappingReport[] {
  return log
    .split('\n')
    .filter((line) => line.includes('"VFs are mapped"'))
    .map((line) => JSON.parse(line) as MappingReport);
}

/** The glue's account of each enable, among whatever else was logged. */
export function timingsIn(log: string): EnableTiming[] {
  return log.split('\n').flatMap((line) => {
    if (!line.includes('"placementCommands"')) {
      return [];
    }
    try {
      return [JSON.parse(line) as EnableTiming];
    } catch {
      return [];
    }
  });
}

export function placedAheadIn(log: string): PlacedAhead[] {
  return log
    .split('\n')
    .filter((line) => line.includes('"slots are placed ahead of an enable"') && line.endsWith('}'))
    .map((line) => JSON.parse(line) as PlacedAhead);
}
