// A made-up Linux host with one SR-IOV PF: a sysfs tree in a temporary folder, and a kernel that answers VFIO's ioctls by
// the rules that were measured on the real one. Tests look at `numVfsWrites` and `openFds`, and make it fail.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DmaMapper } from '../../backend/devices/vfio/dma/dma-mapper.ts';
import type { HostContext } from '../../backend/devices/vfio/host-context.ts';
import { describeHolder } from '../../backend/devices/vfio/readiness/holders.ts';
import { IommuMap, IommuUnmap, VfioRequest } from '../../backend/devices/vfio/vfio/abi.ts';
import type { HostFolders } from '../../backend/devices/vfio/vfio/group.ts';
import type { KernelCalls } from '../../backend/devices/vfio/vfio/kernel-calls.ts';
import { bindVf } from '../../backend/devices/vfio/vfs/bind-vf.ts';
import type { NumVfs } from '../../backend/devices/vfio/vfs/numvfs-writer.ts';
import type { Clock } from '../../protocol/clock.ts';
import { Errno } from '../../protocol/errno.ts';
import { logInto } from '../../protocol/log.ts';
import { pause } from '../../protocol/retry.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { IrqInfo, IrqSet, RegionInfo } from '../../protocol/vfio-user/messages.ts';

export const PF = '0000:01:00.0';
export const TOTAL_VFS = 4;
const VF_BAR_BYTES = 0x4000;

type File =
  | { kind: 'container' }
  | { kind: 'group'; group: string }
  | { kind: 'device'; bdf: string; group: string };

export class FakeVfioHost {
  readonly folder = mkdtempSync(join(tmpdir(), 'fake-vfio-'));
  readonly log: { level: string; message: string }[] = [];
  /** Every value written to sriov_numvfs, also those refused. */
  readonly numVfsWrites: number[] = [];
  readonly ioctls: { request: number; bdf?: string }[] = [];
  readonly mapped: { iova: bigint; size: bigint }[] = [];
  readonly eventFds = new Map<number, () => void>();
  /** Groups that somebody else has open. */
  readonly heldGroups = new Set<string>();
  /** errno for the next writes of sriov_numvfs. */
  readonly numVfsErrors: number[] = [];
  /** Milliseconds that each write of sriov_numvfs takes. */
  numVfsDelay = 0;
  /** errno for the next ioctls of a kind on a function; `bdf` undefined = any. */
  readonly failures: { request: number; bdf?: string; errno: number; times: number }[] = [];
  /** What became of config space: undefined = alive. */
  isOffTheBus = false;
  enabled = 0;
  /** The PF is being unbound: writes of sriov_numvfs wait for that, which waits for the PF to be closed. */
  isUnbinding = false;
  #files = new Map<number, File>();
  #nextFd = 1000;

  constructor() {
    const pf = this.addFunction(PF, '7');
    this.write(`${pf}/sriov_totalvfs`, `${TOTAL_VFS}\n`);
    this.write(`${pf}/sriov_numvfs`, '0\n');
    this.write(`${pf}/resource`, resourceText());
    this.write('sys/module/vfio_pci/parameters/enable_sriov', 'Y\n');
    this.write('dev/vfio/vfio', '');
    this.write('proc/self/limits', 'Max locked memory         unlimited unlimited bytes\n');
    this.write('proc/self/status', 'CapEff:\t0000000000000000\n');
  }

  clock: Clock = processClock;

  /** Context for the code under test. */
  get context(): HostContext {
    return {
      calls: this.calls,
      folders: foldersIn(this.folder),
      log: logInto((level, message) => this.log.push({ level, message })),
      clock: this.clock,
      startWriter: () => this.#writer(),
      startMapper: () => this.#mapper(),
      bindVf,
      holderOf: async (group) => describeHolder(group, `${this.folder}/proc`),
    };
  }

  /** Files of VFIO that are open. */
  get openFds(): number {
    return this.#files.size;
  }

  functionFolder(bdf: string): string {
    return `sys/bus/pci/devices/${bdf}`;
  }

  write(path: string, text: string): void {
    mkdirSync(join(this.folder, path, '..'), { recursive: true });
    writeFileSync(join(this.folder, path), text);
  }

  link(path: string, target: string): void {
    mkdirSync(join(this.folder, path, '..'), { recursive: true });
    rmSync(join(this.folder, path), { force: true });
    symlinkSync(target, join(this.folder, path));
  }

  unlink(path: string): void {
    unlinkSync(join(this.folder, path));
  }

  /** A function with a group of its own, bound to vfio-pci. Gives its folder. */
  addFunction(bdf: string, group: string, driver = 'vfio-pci'): string {
    const folder = this.functionFolder(bdf);
    this.write(`${folder}/class`, '0x020000\n');
    this.write(`${folder}/driver_override`, '(null)\n');
    this.link(`${folder}/iommu_group`, `../../../../kernel/iommu_groups/${group}`);
    this.link(`${folder}/driver`, `../../../../bus/pci/drivers/${driver}`);
    mkdirSync(join(this.folder, 'sys/bus/pci/drivers', driver), { recursive: true });
    this.link(`sys/kernel/iommu_groups/${group}/devices/${bdf}`, `../../../../../${folder}`);
    this.write(`dev/vfio/${group}`, '');
    return folder;
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Signals the release request of a function, as the kernel does when it wants it back. */
  askBack(fd: number): void {
    this.eventFds.get(fd)?.();
  }

  vfBdf(index: number): string {
    return `0000:01:10.${index}`;
  }

  readonly calls: KernelCalls = {
    open: async (path) => this.#open(path),
    close: async (fd) => void this.#files.delete(fd),
    ioctl: (fd, request, argument) => this.#ioctl(fd, request, argument),
    ioctlLater: async (fd, request, argument) => this.#ioctl(fd, request, argument),
    readAt: (fd, into, offset) => this.#read(fd, into, offset),
    writeAt: (_fd, from) => from.length,
    fileIdentity: (fd) => `0:${fd}`,
    createEventFd: () => this.#nextFd++,
    watchEventFd: (fd, onSignal) => {
      this.eventFds.set(fd, onSignal);
      return () => void this.eventFds.delete(fd);
    },
  };

  #open(path: string): number {
    const name = path.slice(`${this.folder}/dev/vfio/`.length);
    if (name === 'vfio') {
      return this.#add({ kind: 'container' });
    }
    if (this.heldGroups.has(name)) {
      return -Errno.EBUSY;
    }
    const isOpen = [...this.#files.values()].some(
      (file) => file.kind !== 'container' && file.group === name,
    );
    return isOpen ? -Errno.EBUSY : this.#add({ kind: 'group', group: name });
  }

  #add(file: File): number {
    this.#files.set(this.#nextFd, file);
    return this.#nextFd++;
  }

  #ioctl(fd: number, request: number, argument: Uint8Array | number): number {
    const file = this.#files.get(fd);
    if (file === undefined) {
      return -Errno.EBADF;
    }
    const bdf = this.#subject(file, request, argument);
    this.ioctls.push({ request, ...(bdf === undefined ? {} : { bdf }) });
    const failure = this.failures.find(
      (each) =>
        each.request === request && each.times > 0 && (each.bdf === undefined || each.bdf === bdf),
    );
    if (failure !== undefined) {
      failure.times--;
      return -failure.errno;
    }
    if (argument instanceof Uint8Array) {
      return this.#answer(file, request, argument, bdf);
    }
    return request === VfioRequest.checkExtension ? 1 : 0;
  }

  #subject(file: File, request: number, argument: Uint8Array | number): string | undefined {
    if (file.kind === 'device') {
      return file.bdf;
    }
    if (request !== VfioRequest.groupGetDeviceFd || !(argument instanceof Uint8Array)) {
      return undefined;
    }
    return new TextDecoder().decode(argument).split(' ')[0]!;
  }

  #answer(file: File, request: number, bytes: Uint8Array, bdf: string | undefined): number {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    switch (request) {
      case VfioRequest.groupGetStatus:
        view.setUint32(4, 1, true);
        return 0;
      case VfioRequest.groupGetDeviceFd:
        if (file.kind !== 'group') {
          return -Errno.EINVAL;
        }
        return this.#add({ kind: 'device', bdf: bdf!, group: file.group });
      case VfioRequest.deviceGetRegionInfo:
        return this.#regionInfo(bytes, bdf!);
      case VfioRequest.deviceGetIrqInfo: {
        const counts = [bdf === PF ? 1 : 0, 0, 3, 1, 1];
        const { index } = IrqInfo.decode(bytes);
        IrqInfo.encode({ argsz: 16, flags: 1, index, count: counts[index]! }, bytes);
        return 0;
      }
      case VfioRequest.iommuMapDma: {
        const { iova, size } = IommuMap.decode(bytes);
        const overlaps = this.mapped.some(
          (other) => iova < other.iova + other.size && other.iova < iova + size,
        );
        if (overlaps) {
          return -Errno.EEXIST;
        }
        this.mapped.push({ iova, size });
        return 0;
      }
      case VfioRequest.iommuUnmapDma: {
        const { iova, size } = IommuUnmap.decode(bytes);
        const isIn = (each: { iova: bigint }) => each.iova >= iova && each.iova < iova + size;
        const left = this.mapped.filter((each) => !isIn(each));
        this.mapped.splice(0, this.mapped.length, ...left);
        return 0;
      }
      case VfioRequest.deviceSetIrqs:
        IrqSet.decode(bytes);
        return 0;
      default:
        return 0;
    }
  }

  #regionInfo(bytes: Uint8Array, bdf: string): number {
    const { index } = RegionInfo.decode(bytes);
    if (index > RegionIndex.config) {
      return -Errno.EINVAL;
    }
    const sizes: Record<number, number> = {
      [RegionIndex.bar0]: bdf === PF ? 0x2_0000 : VF_BAR_BYTES,
      [RegionIndex.bar3]: 0x4000,
      [RegionIndex.config]: 4096,
    };
    const size = sizes[index] ?? 0;
    const flags = size === 0 ? 0 : index === RegionIndex.config ? 3 : 7;
    RegionInfo.encode(
      {
        argsz: RegionInfo.size,
        flags,
        index,
        capOffset: 0,
        size: BigInt(size),
        offset: BigInt(index) << 40n,
      },
      bytes,
    );
    return 0;
  }

  #read(fd: number, into: Uint8Array, offset: number): number {
    const file = this.#files.get(fd);
    if (file?.kind !== 'device') {
      return -Errno.EBADF;
    }
    const config = this.isOffTheBus
      ? new Uint8Array(4096).fill(0xff)
      : configSpace(file.bdf === PF);
    const at = offset - RegionIndex.config * 2 ** 40;
    into.set(config.subarray(at, at + into.length));
    return into.length;
  }

  #mapper(): DmaMapper {
    return {
      map: async (containerFd, { address: iova, size }) => {
        const argument = { argsz: IommuMap.size, flags: 3, address: 0x7000_0000n, iova, size };
        const result = this.#ioctl(containerFd, VfioRequest.iommuMapDma, IommuMap.encode(argument));
        return result < 0 ? { call: 'VFIO_IOMMU_MAP_DMA', errno: -result } : undefined;
      },
      unmap: async (containerFd, { address: iova, size }) => {
        const argument = { argsz: IommuUnmap.size, flags: 0, iova, size };
        const request = VfioRequest.iommuUnmapDma;
        const result = this.#ioctl(containerFd, request, IommuUnmap.encode(argument));
        return result < 0 ? { call: 'VFIO_IOMMU_UNMAP_DMA', errno: -result } : undefined;
      },
      close: () => {},
    };
  }

  #writer(): NumVfs {
    return {
      read: async () => this.enabled,
      write: async (count) => {
        this.numVfsWrites.push(count);
        if (this.numVfsDelay > 0) {
          await pause(this.clock, this.numVfsDelay);
        }
        const errno = this.numVfsErrors.shift();
        if (errno !== undefined) {
          return errno;
        }
        if (this.isUnbinding) {
          return new Promise<number>(() => {});
        }
        this.setVfs(count);
        return 0;
      },
      close: () => {},
    };
  }

  /** Makes or removes VFs, as the kernel does. */
  setVfs(count: number): void {
    for (let index = 0; index < this.enabled; index++) {
      this.unlink(`${this.functionFolder(PF)}/virtfn${index}`);
    }
    for (let index = 0; index < count; index++) {
      const bdf = this.vfBdf(index);
      const folder = this.addFunction(bdf, String(20 + index), this.vfDriver);
      this.link(`${folder}/physfn`, `../${this.vfOwner}`);
      this.link(`${this.functionFolder(PF)}/virtfn${index}`, `../${bdf}`);
    }
    this.enabled = count;
  }

  /** The driver that new VFs get, and the PF they say they belong to. */
  vfDriver = 'vfio-pci';
  vfOwner = PF;
}

/** Where things are on a made-up host. */
export function foldersIn(folder: string): HostFolders {
  return {
    sysfs: `${folder}/sys`,
    dev: `${folder}/dev`,
    proc: `${folder}/proc`,
    state: `${folder}/run`,
  };
}

function resourceText(): string {
  const lines = Array.from({ length: 13 }, () => '0x0000000000000000 0x0000000000000000 0x0');
  const vfBar = (start: number) =>
    `0x${start.toString(16)} 0x${(start + VF_BAR_BYTES * TOTAL_VFS - 1).toString(16)} 0x000000000014220c`;
  lines[7] = vfBar(0xfe80_0000);
  lines[10] = vfBar(0xfe82_0000);
  return `${lines.join('\n')}\n`;
}

/** Config space as VFIO shows it: IDs, MSI-X in BAR 3, PCI Express; the PF also AER and SR-IOV. */
export function configSpace(isPf: boolean): Uint8Array {
  const config = new Uint8Array(4096);
  const view = new DataView(config.buffer);
  view.setUint32(0x00, isPf ? 0x10c9_8086 : 0x10ca_8086, true);
  view.setUint16(0x06, 0x0010, true);
  view.setUint32(0x08, 0x0200_0001, true);
  view.setUint32(0x10, isPf ? 0x0000_0000 : 0x0000_000c, true);
  view.setUint32(0x1c, 0x0000_000c, true);
  config[0x34] = 0x70;
  // MSI-X: 3 vectors, table at 0 and pending bits at 0x2000 of BAR 3.
  view.setUint32(0x70, 0x0002_a011, true);
  view.setUint32(0x74, 3, true);
  view.setUint32(0x78, 0x2003, true);
  view.setUint32(0xa0, 0x0002_0010, true);
  if (isPf) {
    view.setUint32(0x100, 0x1601_0001, true);
    view.setUint32(0x160, 0x0001_0010, true);
    view.setUint16(0x160 + 0x0e, TOTAL_VFS, true);
    view.setUint16(0x160 + 0x1a, 0x10ca, true);
  }
  return config;
}
