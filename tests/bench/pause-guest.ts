// The virtual machine of the guest-pause benchmark: a guest Linux in stock QEMU, started as a user starts it, that
// enables VFs; with the glue's own account of every enable, and a second monitor for the baseline.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { EnableTiming } from '../../vmm-glue/choreography/enable.ts';
import { GuestVm } from '../lab/guest.ts';
import { guestArguments } from '../lab/guest-arguments.ts';
import { writeInitramfs } from '../lab/initramfs.ts';
import type { Lab } from '../lab/lab.ts';
import { BareMonitor } from './bare-monitor.ts';
import { repositoryRoot } from './server-process.ts';

/** The first function behind the first root port, where the launcher puts the PF by default. */
const PF_BUS = 1;
const SYSFS = '/sys/bus/pci/devices/0000:01:00.0';
/** With ACPI hot-plug QEMU's ports never show their link as active, and Linux takes every bus reset for failed. */
const BUS_RESETS = ['-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'];
const TIMING_MILLISECONDS = 10_000;

export class PauseGuest {
  readonly monitor: BareMonitor;
  readonly #vm: GuestVm;
  #timingsTaken = 0;

  /** Boots a guest in which the PF has a driver. `more` = further options of `vfio-user-sriov qemu`. */
  static async boot(paths: Lab, folder: string, more: readonly string[]): Promise<PauseGuest> {
    const initrd = await writeInitramfs({
      file: join(folder, 'initrd'),
      busybox: paths.busybox,
      modulesFolder: paths.modules,
      modules: ['pci-pf-stub'],
    });
    const path = join(folder, 'baseline.qmp');
    const cli = join(repositoryRoot(), 'dist/cli.js');
    const launcher = ['qemu', '--loopback', '--log-format=json', ...more, '--', paths.qemu];
    const guest = guestArguments({ kernel: paths.kernel, initrd });
    const vm = await GuestVm.start({
      command: process.execPath,
      args: [cli, ...launcher, ...guest, ...BUS_RESETS, '-qmp', `unix:${path},server=on,wait=off`],
    });
    try {
      await vm.waitForBoot();
      const booted = new PauseGuest(vm, await BareMonitor.connect(path));
      await booted.#bindDriver();
      return booted;
    } catch (error) {
      await vm.kill();
      throw error;
    }
  }

  private constructor(vm: GuestVm, monitor: BareMonitor) {
    this.#vm = vm;
    this.monitor = monitor;
  }

  /** Resets the bus behind the root port: the placement of every slot is lost. Only without VFs. */
  async resetBus(): Promise<void> {
    await this.#vm.check(`echo bus > ${SYSFS}/reset_method && echo 1 > ${SYSFS}/reset`);
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
    const deadline = Date.now() + TIMING_MILLISECONDS;
    while (Date.now() < deadline) {
      const timings = timingsIn(this.#vm.processOutput);
      if (timings.length > this.#timingsTaken) {
        return timings[this.#timingsTaken++]!;
      }
      await sleep(5);
    }
    throw new Error(`the launcher logged no enable:\n${this.#vm.processOutput.slice(-4000)}`);
  }
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
