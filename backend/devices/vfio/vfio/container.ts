// One VFIO container (type 1, version 2): an IOMMU address space that groups are attached to and guest memory is
// mapped into. Mappings are carried out one after another, in chunks, by DmaMapper. Called by DmaDirector.
import type { Clock } from '../../../../protocol/clock.ts';
import { Errno, errnoName } from '../../../../protocol/errno.ts';
import { ExclusiveQueue } from '../../../../protocol/exclusive-queue.ts';
import { type DmaWindow, HostError } from '../../../device/physical-device.ts';
import {
  type DmaLimits,
  decodeIommuInfo,
  explainRefusedMap,
  explainRefusedMmap,
} from '../dma/dma-limits.ts';
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { PinnedMemory } from '../dma/pinned-memory.ts';
import { IommuInfo, TYPE1_V2, VFIO_API_VERSION, VfioRequest } from './abi.ts';
import type { KernelCalls } from './kernel-calls.ts';

/** Bytes mapped by one ioctl: the kernel pins them all before it returns. */
const CHUNK = 1n << 30n;
/** How long a container that is closed waits for what the mapper has at hand: pinning a TiB of memory takes minutes. */
const CLOSE_PATIENCE_MILLISECONDS = 5000;
/** Room for the capabilities of VFIO_IOMMU_GET_INFO. */
const INFO_BYTES = 4096;

export interface ContainerOptions {
  /** The folder of device files: `/dev`. */
  readonly dev: string;
  /** Bytes that may be pinned, for explanations; undefined = no limit. */
  readonly memlock: bigint | undefined;
  readonly mapper: DmaMapper;
  /** Shared by all containers of the backend. */
  readonly pinned: PinnedMemory;
  readonly clock: Clock;
}

interface Mapping {
  readonly size: bigint;
  /** Takes it off what is pinned. */
  readonly unpin: () => void;
}

export class VfioContainer {
  readonly #calls: KernelCalls;
  readonly #options: ContainerOptions;
  readonly #path: string;
  readonly fd: number;
  /** By bus address. */
  readonly #mappings = new Map<bigint, Mapping>();
  #limits: DmaLimits | undefined;
  /** A VMM unmaps and maps the same addresses in a row: order is meaning. */
  readonly #queue = new ExclusiveQueue();
  #isClosed = false;

  private constructor(calls: KernelCalls, options: ContainerOptions, path: string, fd: number) {
    this.#calls = calls;
    this.#options = options;
    this.#path = path;
    this.fd = fd;
  }

  /** Opens `<dev>/vfio/vfio`. @throws HostError */
  static async open(calls: KernelCalls, options: ContainerOptions): Promise<VfioContainer> {
    const path = `${options.dev}/vfio/vfio`;
    const fd = await calls.open(path);
    if (fd < 0) {
      throw new HostError(
        'open',
        -fd,
        path,
        `the VFIO driver cannot be opened (${errnoName(-fd)})`,
        fd === -Errno.ENOENT
          ? 'load it: `modprobe vfio-pci`'
          : 'run as root, or `vfio-user-sriov prepare --user=NAME` once',
      );
    }
    const version = calls.ioctl(fd, VfioRequest.getApiVersion, 0);
    if (
      version !== VFIO_API_VERSION ||
      calls.ioctl(fd, VfioRequest.checkExtension, TYPE1_V2) !== 1
    ) {
      await calls.close(fd);
      throw new HostError(
        'VFIO_CHECK_EXTENSION',
        Errno.ENOTSUP,
        path,
        `the kernel offers no type1v2 IOMMU (API version ${version})`,
        'turn the IOMMU on (intel_iommu=on or amd_iommu=on) and load vfio_iommu_type1',
      );
    }
    return new VfioContainer(calls, options, path, fd);
  }

  /** Puts an open group into this address space; the first one also decides the IOMMU. @throws HostError */
  attach(groupFd: number, groupPath: string): Promise<void> {
    return this.#queue.run(async () => {
      const argument = new Uint8Array(new Int32Array([this.fd]).buffer);
      const put = await this.#calls.ioctlLater(groupFd, VfioRequest.groupSetContainer, argument);
      if (put < 0) {
        throw new HostError(
          'VFIO_GROUP_SET_CONTAINER',
          -put,
          groupPath,
          put === -Errno.EBUSY
            ? 'the group is in another container already'
            : `the group cannot share this IOMMU address space (${errnoName(-put)})`,
          'use --container=per-function',
        );
      }
      if (this.#limits !== undefined) {
        return;
      }
      const set = await this.#calls.ioctlLater(this.fd, VfioRequest.setIommu, TYPE1_V2);
      if (set < 0) {
        throw new HostError(
          'VFIO_SET_IOMMU',
          -set,
          groupPath,
          `the IOMMU refuses the device (${errnoName(-set)})`,
          'check that the IOMMU is on and that interrupt remapping works (dmesg)',
        );
      }
      this.#limits = this.#readLimits();
    });
  }

  /** What may be mapped; known once a group is attached. */
  get limits(): DmaLimits | undefined {
    return this.#limits;
  }

  /** Maps guest memory for the device. Nothing of it stays mapped when it fails. @throws HostError */
  map(window: DmaWindow): Promise<void> {
    return this.#queue.run(async () => {
      const unpin = this.#options.pinned.add(window);
      let done = 0n;
      try {
        while (done < window.size) {
          const address = window.address + done;
          const size = chunkSize(address, window.size - done);
          await this.#mapChunk({ ...window, address, size, fileOffset: window.fileOffset + done });
          done += size;
        }
      } catch (error) {
        await this.#takeBack(window.address, done);
        unpin();
        throw error;
      }
      this.#mappings.set(window.address, { size: window.size, unpin });
    });
  }

  /** Takes a mapping back. @throws HostError ENOENT when there is none like it. */
  unmap(window: Pick<DmaWindow, 'address' | 'size'>): Promise<void> {
    return this.#queue.run(async () => {
      const mapping = this.#mappings.get(window.address);
      if (mapping === undefined || mapping.size !== window.size) {
        throw new HostError(
          'VFIO_IOMMU_UNMAP_DMA',
          Errno.ENOENT,
          this.#path,
          `nothing of ${window.size} bytes is mapped at 0x${window.address.toString(16)}`,
        );
      }
      this.#mappings.delete(window.address);
      await this.#takeBack(window.address, window.size);
      mapping.unpin();
    });
  }

  /** Takes all mappings back, in one call, however many there are. @throws HostError */
  unmapAll(): Promise<void> {
    return this.#queue.run(async () => {
      const mappings = [...this.#mappings];
      this.#mappings.clear();
      const [first] = mappings;
      if (first === undefined) {
        return;
      }
      let [start] = first;
      let end = start;
      let mapped = 0n;
      for (const [address, { size }] of mappings) {
        start = address < start ? address : start;
        end = address + size > end ? address + size : end;
        mapped += size;
      }
      await this.#takeBack(start, end - start, mapped);
      for (const [, { unpin }] of mappings) {
        unpin();
      }
    });
  }

  /**
   * Closes the address space; mappings go with the last function that uses it. A map that takes longer than it may is
   * not waited for: the mapper has its own copy of the fd, and lets go when the kernel lets it.
   */
  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      const patience = this.#options.clock.after(CLOSE_PATIENCE_MILLISECONDS, resolve);
      void this.#queue.idle().then(() => {
        patience.cancel();
        resolve();
      });
    });
    this.#isClosed = true;
    await this.#calls.close(this.fd);
    for (const { unpin } of this.#mappings.values()) {
      unpin();
    }
    this.#mappings.clear();
  }

  async #mapChunk(chunk: DmaWindow): Promise<void> {
    this.#checkOpen('VFIO_IOMMU_MAP_DMA');
    const refusal = await this.#options.mapper.map(this.fd, chunk);
    if (refusal === undefined) {
      return;
    }
    const { call, errno } = refusal;
    const { message, fix } =
      call === 'mmap'
        ? explainRefusedMmap(errno, chunk)
        : explainRefusedMap(errno, chunk, this.#limits ?? this.#readLimits());
    throw new HostError(call, errno, this.#path, message, fix);
  }

  // The kernel takes back whole mappings, all that lie in the range: `mapped` bytes of it.
  async #takeBack(iova: bigint, size: bigint, mapped = size): Promise<void> {
    if (size === 0n) {
      return;
    }
    this.#checkOpen('VFIO_IOMMU_UNMAP_DMA');
    const refusal = await this.#options.mapper.unmap(this.fd, { address: iova, size }, mapped);
    if (refusal === undefined) {
      return;
    }
    throw new HostError(
      refusal.call,
      refusal.errno,
      this.#path,
      `${mapped} bytes at 0x${iova.toString(16)} stay mapped (${errnoName(refusal.errno)})`,
    );
  }

  /** What waited behind a map that was not waited for finds the fd's number in other use. */
  #checkOpen(call: string): void {
    if (this.#isClosed) {
      throw new HostError(call, Errno.ECANCELED, this.#path, 'the address space was closed');
    }
  }

  #readLimits(): DmaLimits {
    const bytes = new Uint8Array(INFO_BYTES);
    IommuInfo.encode(
      { argsz: INFO_BYTES, flags: 0, pageSizes: 0n, capOffset: 0, reserved: 0 },
      bytes,
    );
    this.#calls.ioctl(this.fd, VfioRequest.iommuGetInfo, bytes);
    return decodeIommuInfo(bytes, this.#options.memlock);
  }
}

// Chunks end where a bus address is a multiple of their size, so that the IOMMU can use its largest pages.
function chunkSize(address: bigint, left: bigint): bigint {
  const toBoundary = CHUNK - (address % CHUNK);
  return left < toBoundary ? left : toBoundary;
}
