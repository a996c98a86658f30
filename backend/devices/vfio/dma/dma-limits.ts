// What the IOMMU and this process's limits allow for DMA, read up front, and the sentences that explain a refused
// mapping with them. Pure but for readMemlockLimit. Called by VfioContainer.
import { readFileSync } from 'node:fs';
import { Errno, errnoName } from '../../../../protocol/errno.ts';
import type { RecordOf } from '../../../../protocol/record.ts';
import { CapabilityHeader } from '../../../../protocol/vfio-user/messages.ts';
import type { DmaWindow } from '../../../device/physical-device.ts';
import {
  DmaAvailable,
  IommuCapability,
  IommuInfo,
  IommuInfoFlag,
  IovaRange,
  IovaRanges,
} from '../vfio/abi.ts';

export interface DmaLimits {
  /** Sizes that the IOMMU maps in one step, as a bit mask; its lowest bit is the granularity. */
  readonly pageSizes: bigint;
  /** Bus addresses that may be mapped; the end belongs to the range. Empty = the kernel does not say. */
  readonly iovaRanges: readonly RecordOf<typeof IovaRange>[];
  /** How many more mappings the kernel takes, or undefined. */
  readonly entriesLeft: number | undefined;
  /** Bytes that this process may pin; undefined = no limit. */
  readonly memlock: bigint | undefined;
}

/** Reads the answer to VFIO_IOMMU_GET_INFO. */
export function decodeIommuInfo(bytes: Uint8Array, memlock: bigint | undefined): DmaLimits {
  const info = IommuInfo.decode(bytes);
  const iovaRanges: RecordOf<typeof IovaRange>[] = [];
  let entriesLeft: number | undefined;
  let at = (info.flags & IommuInfoFlag.caps) !== 0 ? info.capOffset : 0;
  let previous = 0;
  while (at > previous) {
    const head = CapabilityHeader.decode(bytes, at);
    if (head.id === IommuCapability.iovaRanges) {
      const { count } = IovaRanges.decode(bytes, at);
      for (let i = 0; i < count; i++) {
        iovaRanges.push(IovaRange.decode(bytes, at + IovaRanges.size + i * IovaRange.size));
      }
    }
    if (head.id === IommuCapability.dmaAvailable) {
      entriesLeft = DmaAvailable.decode(bytes, at).available;
    }
    previous = at;
    at = head.next;
  }
  const pageSizes = (info.flags & IommuInfoFlag.pageSizes) !== 0 ? info.pageSizes : 0x1000n;
  return { pageSizes, iovaRanges, entriesLeft, memlock };
}

/** RLIMIT_MEMLOCK of this process in bytes; undefined = none, or this process may exceed it. */
export function readMemlockLimit(procRoot = '/proc'): bigint | undefined {
  const line = /^Max locked memory\s+(\S+)/m.exec(readFileSync(`${procRoot}/self/limits`, 'utf8'));
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync(`${procRoot}/self/status`, 'utf8'));
  const CAP_IPC_LOCK = 14n;
  const mayExceed = ((BigInt(`0x${effective?.[1] ?? '0'}`) >> CAP_IPC_LOCK) & 1n) === 1n;
  const limit = line?.[1];
  if (mayExceed || limit === undefined || limit === 'unlimited') {
    return undefined;
  }
  return BigInt(limit);
}

/** Why a memory file could not be mapped into a process, and what to do about it. */
export function explainRefusedMmap(
  errno: number,
  { address }: Pick<DmaWindow, 'address'>,
): { message: string; fix: string } {
  return {
    message: `guest memory at 0x${address.toString(16)} cannot be mapped here (${errnoName(errno)})`,
    fix: 'share it: `-object memory-backend-memfd,share=on`',
  };
}

/** Why the kernel refused to map `window` for the device, and what to do about it. */
export function explainRefusedMap(
  errno: number,
  window: Pick<DmaWindow, 'address' | 'size'>,
  limits: DmaLimits,
): { message: string; fix: string } {
  const what = `${mebibytes(window.size)} at bus address 0x${window.address.toString(16)}`;
  switch (errno) {
    case Errno.ENOMEM: {
      const limit = limits.memlock === undefined ? 'its limit' : mebibytes(limits.memlock);
      return {
        message: `cannot pin ${what}: this process may lock ${limit} of memory (RLIMIT_MEMLOCK)`,
        fix: 'raise it, e.g. `ulimit -l unlimited` before the start, or LimitMEMLOCK=infinity in a systemd unit',
      };
    }
    case Errno.ENOSPC:
      return {
        message: `cannot map ${what}: the kernel's number of mappings is used up`,
        fix: 'raise /sys/module/vfio_iommu_type1/parameters/dma_entry_limit, or give the VM fewer memory devices',
      };
    case Errno.EEXIST:
      return {
        message: `cannot map ${what}: a part of it is mapped already`,
        fix: 'the VMM must unmap it first',
      };
    case Errno.EFAULT:
      return {
        message: `cannot pin ${what}: the file behind it is shorter, or its pages cannot be used`,
        fix: 'check that the size of the memory backend is what the VM was given',
      };
    case Errno.EINVAL:
      return explainInvalid(what, window, limits);
    case Errno.EPIPE:
      return {
        message: `cannot map ${what}: the process that maps memory has ended`,
        fix: 'see dmesg for who ended it, and start the backend and its VM again',
      };
    default:
      return { message: `cannot map ${what}`, fix: '' };
  }
}

function explainInvalid(
  what: string,
  { address, size }: Pick<DmaWindow, 'address' | 'size'>,
  { pageSizes, iovaRanges }: DmaLimits,
): { message: string; fix: string } {
  const granule = pageSizes & -pageSizes;
  if (granule > 0n && (address % granule !== 0n || size % granule !== 0n)) {
    return {
      message: `cannot map ${what}: not a multiple of the IOMMU's page of ${granule} bytes`,
      fix: 'the VMM must align it',
    };
  }
  const end = address + size - 1n;
  if (iovaRanges.length > 0 && !iovaRanges.some((r) => address >= r.start && end <= r.end)) {
    const ranges = iovaRanges.map((r) => `0x${r.start.toString(16)}-0x${r.end.toString(16)}`);
    return {
      message: `cannot map ${what}: this IOMMU can map ${ranges.join(', ')} only`,
      fix: 'give the VM less memory, or move it away from the reserved ranges',
    };
  }
  return { message: `cannot map ${what}: the kernel finds it invalid`, fix: '' };
}

function mebibytes(bytes: bigint): string {
  return bytes >= 0x10_0000n ? `${bytes >> 20n} MiB` : `${bytes} bytes`;
}
