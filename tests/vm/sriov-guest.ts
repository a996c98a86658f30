// A guest of stock QEMU with a loopback PF, as the VM tests look at it: started by `vfio-user-sriov qemu`, looked at
// through the guest's shell. Every test file boots one and shares it among its tests.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import type { BootFiles } from '../lab/grub.ts';
import { GuestVm } from '../lab/guest.ts';
import { guestArguments, kernelParameters } from '../lab/guest-arguments.ts';
import { guestProgram } from '../lab/guest-program.ts';
import { type GuestFile, writeInitramfs } from '../lab/initramfs.ts';
import type { DebianKernel } from '../lab/kernel.ts';
import { aarch64Lab, lab, type Processor } from '../lab/lab.ts';
import { descendantsOf } from '../process-tree.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/dist\/$/, '/');
export const CLI = join(ROOT, 'dist/cli.js');

/** Offsets in the loopback device's BAR 0: backend/devices/loopback/registers.ts. */
export const Bar = { magic: 0x0, functionNumber: 0x4, scratch: 0xc, memory: 0x2000 } as const;
export const MAGIC = '0x52535556';
export const ALL_ONES = '0xffffffff';
/** Offsets in the SR-IOV capability, PCIe Base 4.0. */
export const Sriov = { control: 0x08, totalVfs: 0x0e, numVfs: 0x10, vfBar0: 0x24 } as const;

export interface SriovGuestOptions {
  /** The device, as options of `vfio-user-sriov qemu`; a loopback by default. */
  readonly device?: readonly string[];
  /** Options of `vfio-user-sriov qemu`. */
  readonly launcher?: readonly string[];
  /** Modules of the guest, in place of what a loopback PF needs. */
  readonly modules?: readonly string[];
  readonly files?: readonly GuestFile[];
  /** What starts the VM instead of the launcher, and takes QEMU's arguments last. */
  readonly starter?: (qemu: string) => { command: string; args: readonly string[] };
  /** A virtual IOMMU that remaps interrupts, and vfio-pci to go with it. */
  readonly iommu?: boolean;
  /** Address of the PF in the guest; behind the first root port by default. */
  readonly pf?: string;
  readonly memoryMegabytes?: number;
  /** Its memory is in pages of 2 MiB, which the machine must have: huge-pages.ts. */
  readonly hugePages?: boolean;
  /** 1 by default. */
  readonly cpus?: number;
  /** x86_64 by default. */
  readonly processor?: Processor;
  /** In place of the lab's usual one. */
  readonly kernel?: DebianKernel;
  /** More kernel parameters. */
  readonly append?: readonly string[];
  /** Makes the disk that the guest is booted from, as arguments for QEMU, which starts the kernel itself otherwise. */
  readonly makeBootDisk?: (files: BootFiles) => Promise<readonly string[]>;
  /** More arguments for QEMU. */
  readonly qemu?: readonly string[];
}

/** Of a guest, unless told otherwise. */
export const MEMORY_MEGABYTES = 256;
const IOMMU = {
  x86_64: {
    machineProperties: ['kernel-irqchip=split'],
    append: ['intel_iommu=on', 'iommu=nopt'],
    devices: ['-device', 'intel-iommu,intremap=on,caching-mode=on'],
  },
  // QEMU's SMMUv3 tells vfio devices of no mappings, so that QEMU refuses them behind it. The driver of the other one is a
  // module, which comes too late for Linux to turn on ACS by itself: all functions would be in one group.
  aarch64: {
    machineProperties: [],
    append: ['pci=config_acs=111x1@pci:0:0'],
    devices: ['-device', 'virtio-iommu-pci'],
  },
};
/** Its driver, where it is a module: before there is a device behind it; and what drives functions from user space. */
const IOMMU_MODULES = {
  x86_64: ['vfio-pci', 'vfio_iommu_type1'],
  aarch64: ['virtio-iommu', 'vfio-pci', 'vfio_iommu_type1'],
};
/** What the kernel says when something went wrong inside it. */
const KERNEL_TROUBLE = /WARNING:|BUG:|Oops|Call Trace|cut here|soft lockup|general protection/;
/** What QEMU prints in a run in which all is well. */
const HARMLESS = /terminating on signal/;

export class SriovGuest {
  readonly vm: GuestVm;
  readonly pf: string;
  readonly #folder: string;
  /** Of the kernel's, in boots that have ended. */
  readonly #complaints: string[] = [];

  private constructor(vm: GuestVm, pf: string, folder: string) {
    this.vm = vm;
    this.pf = pf;
    this.#folder = folder;
  }

  /** Boots; the PF has no driver yet. */
  static async boot(options: SriovGuestOptions = {}): Promise<SriovGuest> {
    const { processor = 'x86_64' } = options;
    const paths = processor === 'aarch64' ? await aarch64Lab() : await lab(options.kernel);
    const folder = await mkdtemp(join(tmpdir(), 'sriov-guest-'));
    const initrd = await writeInitramfs({
      file: join(folder, 'initrd'),
      busybox: paths.busybox,
      guestBusybox: paths.guestBusybox,
      modulesFolder: paths.modules,
      modules: [
        ...(options.iommu ? IOMMU_MODULES[processor] : []),
        ...(options.modules ?? ['pci-pf-stub']),
      ],
      files: [
        { path: '/bin/pci-function', source: await guestProgram(processor) },
        ...(options.files ?? []),
      ],
    });
    const { command, args } = options.starter?.(paths.qemu) ?? {
      command: process.execPath,
      args: [
        CLI,
        'qemu',
        ...(options.device ?? ['--loopback']),
        ...(options.launcher ?? []),
        '--',
        paths.qemu,
      ],
    };
    const { devices, append, ...settings } = options.iommu
      ? IOMMU[processor]
      : { devices: [], append: [] };
    const { kernel } = paths;
    const parameters = [...append, ...(options.append ?? [])];
    const commandLine = kernelParameters(parameters, processor);
    const bootDisk = await options.makeBootDisk?.({ kernel, initrd, commandLine, folder });
    const guest = guestArguments({
      ...(bootDisk === undefined ? { kernel, initrd } : {}),
      processor,
      memoryMegabytes: options.memoryMegabytes ?? MEMORY_MEGABYTES,
      hugePages: options.hugePages ?? false,
      cpus: options.cpus ?? 1,
      append: parameters,
      ...settings,
    });
    const vm = await GuestVm.start({
      command,
      args: [...args, ...guest, ...(bootDisk ?? []), ...devices, ...(options.qemu ?? [])],
    });
    const booted = new SriovGuest(vm, options.pf ?? '0000:01:00.0', folder);
    try {
      await vm.waitForBoot();
    } catch (error) {
      await booted.end();
      throw error;
    }
    return booted;
  }

  /** Ends the VM, however it is, and removes its files. */
  async end(): Promise<void> {
    await this.vm.kill();
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** The same guest, looked at from another PF of it. */
  withPf(pf: string): SriovGuest {
    return new SriovGuest(this.vm, pf, this.#folder);
  }

  /** The PF's folder in the guest's sysfs. */
  get sysfs(): string {
    return `/sys/bus/pci/devices/${this.pf}`;
  }

  /** The guest's address of a VF: routing IDs follow the PF's one by one. */
  vf(vfIndex: number): string {
    const [, bus, device, fn] = /^0000:(..):(..)\.(.)$/.exec(this.pf)!;
    const devfn = Number.parseInt(device!, 16) * 8 + Number(fn) + 1 + vfIndex;
    return `0000:${bus}:${(devfn >> 3).toString(16).padStart(2, '0')}.${devfn & 7}`;
  }

  async bindDriver(driver: string, address = this.pf): Promise<void> {
    const device = `/sys/bus/pci/devices/${address}`;
    await this.vm.check(
      `[ -e ${device}/driver ] && echo ${address} > ${device}/driver/unbind; ` +
        `echo ${driver} > ${device}/driver_override && echo ${address} > /sys/bus/pci/drivers_probe && ` +
        `[ $(basename $(readlink ${device}/driver)) = ${driver} ]`,
    );
  }

  /** Writes sriov_numvfs; rejects with what the guest's kernel says. */
  async setNumVfs(numVfs: number): Promise<void> {
    await this.vm.check(`echo ${numVfs} > ${this.sysfs}/sriov_numvfs`);
  }

  /** What `virtfn0`, `virtfn1`, … link to. */
  async virtfns(): Promise<string[]> {
    const output = await this.vm.check(
      `cd ${this.sysfs}; for link in $(ls -d virtfn* 2>/dev/null | sort -V); do basename $(readlink $link); done`,
    );
    return output === '' ? [] : output.split('\n');
  }

  /** Start of a function's BAR 0, or of the VFs' room for `index` 7, as the guest's kernel has it. */
  async barAddress(address: string, index = 0): Promise<number> {
    const line = `sed -n ${index + 1}p /sys/bus/pci/devices/${address}/resource`;
    return Number((await this.vm.check(line)).split(' ')[0]);
  }

  async readBar(address: string, offset: number): Promise<string> {
    return await this.vm.check(`pci-function bar ${address} ${offset}`);
  }

  async writeBar(address: string, offset: number, value: number): Promise<void> {
    await this.vm.check(`pci-function bar ${address} ${offset} ${value}`);
  }

  async readConfig(address: string, offset: number, bytes: 1 | 2 | 4): Promise<number> {
    return Number(await this.vm.check(`pci-function config ${address} ${offset} ${bytes}`));
  }

  async writeConfig(address: string, offset: number, bytes: 1 | 2 | 4, value: number) {
    await this.vm.check(`pci-function config ${address} ${offset} ${bytes} ${value}`);
  }

  /** Offset of a capability of a function, found as a guest finds it. */
  async capability(address: string, id: number): Promise<number> {
    for (let at = await this.readConfig(address, 0x34, 1); at !== 0; ) {
      const header = await this.readConfig(address, at, 2);
      if ((header & 0xff) === id) {
        return at;
      }
      at = header >>> 8;
    }
    throw new Error(`${address} has no capability 0x${id.toString(16)}`);
  }

  /** Offset of an extended capability of the PF, found as a guest finds it. */
  async extendedCapability(id: number): Promise<number> {
    for (let offset = 0x100; offset !== 0; ) {
      const header = await this.readConfig(this.pf, offset, 4);
      if ((header & 0xffff) === id) {
        return offset;
      }
      offset = header >>> 20;
    }
    throw new Error(`the PF has no extended capability 0x${id.toString(16)}`);
  }

  /** Each VF's BAR 0 shows the registers of that VF and of no other. */
  async expectVfContents(count: number): Promise<void> {
    const reads = Array.from({ length: count }, (_, vfIndex) => {
      const vf = this.vf(vfIndex);
      return `echo $(pci-function bar ${vf} ${Bar.magic}) $(pci-function bar ${vf} ${Bar.functionNumber})`;
    });
    const lines = (await this.vm.check(reads.join('\n'))).split('\n').filter(Boolean);
    const hex = (value: number): string => `0x${value.toString(16).padStart(8, '0')}`;
    expect(lines).toEqual(Array.from({ length: count }, (_, vf) => `${MAGIC} ${hex(vf + 1)}`));
  }

  /** Process ids of what the launcher started, by the name of the program. */
  async launched(): Promise<{ backend: number; qemu: number }> {
    const found = new Map<string, number>();
    for (const pid of descendantsOf(this.vm.pid)) {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (command.includes('\0serve\0')) {
        found.set('backend', pid);
      } else if (command.includes('vfio-user-pci')) {
        found.set('qemu', pid);
      }
    }
    return { backend: found.get('backend')!, qemu: found.get('qemu')! };
  }

  /** A guest that boots anew has its log read before. */
  async reboot(): Promise<void> {
    this.#complaints.push(...(await this.#kernelComplaints()));
    await this.vm.reboot();
  }

  /** Neither the guest's kernel nor QEMU had anything to complain of, in all boots so far. */
  async expectNoComplaints(): Promise<void> {
    expect([...this.#complaints, ...(await this.#kernelComplaints())]).toEqual([]);
    const qemu = this.vm.processOutput
      .split('\n')
      .filter((line) => /qemu-system-\w+:|vfio_user/.test(line) && !HARMLESS.test(line));
    expect(qemu).toEqual([]);
  }

  /** Of the console, which has the end of a kernel that died, and of its log: a warning does not reach a quiet console. */
  async #kernelComplaints(): Promise<string[]> {
    const { output } = await this.vm.run('dmesg');
    return `${this.vm.consoleLog}\n${output}`
      .split('\n')
      .filter((line) => KERNEL_TROUBLE.test(line));
  }
}
