// Describes a virtual host: a VM with an IOMMU and an emulated SR-IOV card behind a root port, which has Node.js,
// QEMU and this project inside. Start it with GuestVm.
import { join } from 'node:path';
import type { GuestVmOptions } from './guest.ts';
import { guestArguments } from './guest-arguments.ts';
import { type GuestFile, writeInitramfs } from './initramfs.ts';
import type { Lab } from './lab.ts';
import {
  HOST_FILES,
  hostShares,
  mountScript,
  SHARE_MODULES,
  type Share,
  shareArguments,
} from './rootfs.ts';

/** An igb with 8 VFs at 0000:01:00.0; its peer is a network without a way out, else it would have no link. */
export const IGB_DEVICE: readonly string[] = [
  ...['-netdev', 'user,id=igbnet,restrict=on'],
  ...['-device', 'pcie-root-port,id=rp1,chassis=1,slot=1,addr=4'],
  ...['-device', 'igb,bus=rp1,netdev=igbnet'],
];

/** What a test wants of its virtual host. */
export interface HostVmOptions {
  readonly lab: Lab;
  /** A folder of the test's own, for the VM's initramfs. */
  readonly folder: string;
  /** QEMU arguments of the devices under test. */
  readonly devices?: readonly string[];
  /** 1 by default. */
  readonly cpus?: number;
  /** 512 suffice for Node.js; 1024 with a nested guest. */
  readonly memoryMegabytes?: number;
  readonly modules?: readonly string[];
  readonly loadableModules?: readonly string[];
  readonly shares?: readonly Share[];
  readonly files?: readonly GuestFile[];
  /** Shell commands that run when the shares are mounted, before the VM is reported ready. */
  readonly script?: string;
  readonly append?: readonly string[];
}

/** Prepares the VM's file system and gives what GuestVm.start takes. */
export async function hostVm(options: HostVmOptions): Promise<GuestVmOptions> {
  const { lab } = options;
  const shares = [...(await hostShares(lab.kernel)), ...(options.shares ?? [])];
  const initrd = await writeInitramfs({
    file: join(options.folder, 'host-initrd'),
    busybox: lab.busybox,
    modulesFolder: lab.modules,
    modules: [...SHARE_MODULES, ...(options.modules ?? [])],
    loadableModules: options.loadableModules ?? [],
    files: [...HOST_FILES, ...(options.files ?? [])],
    script: `${mountScript(shares)}${options.script ?? ''}`,
  });
  const args = guestArguments({
    kernel: lab.kernel,
    initrd,
    memoryMegabytes: options.memoryMegabytes ?? 1024,
    cpus: options.cpus ?? 1,
    machineProperties: ['kernel-irqchip=split'],
    append: ['intel_iommu=on', 'iommu=nopt', ...(options.append ?? [])],
  });
  const iommu = ['-device', 'intel-iommu,intremap=on,caching-mode=on'];
  const devices = options.devices ?? IGB_DEVICE;
  // The IOMMU comes first: it serves only the devices that are made after it.
  return { command: lab.qemu, args: [...args, ...iommu, ...devices, ...shareArguments(shares)] };
}
